"""Write what the page "The explorer" carries: a map of clips, answers to queries, gate values, sounds and spectrograms.

    python book/explorer_data.py OUT_FOLDER

It makes OUT_FOLDER/explorer, whole or not at all, and replaces one that is there. The same features give the same
bytes. Clips are the test part of Pocket Brown; the cache (`CLASP_CACHE`) is used and filled.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from explorer_material import HOP_S, RATE, WINDOW_S, Gates, Material, gather

HITS = 10
SIDE = 1000  # of the square in which a map lies
BINS = 20
ROW, COLUMNS_A_SECOND = 48, 30  # of a spectrogram in its sheet, in pixels
BUDGET_BYTES = 4_900_000

FAMILIES = {
    "press": ("news", "editorial", "reviews"),
    "prose": ("religion", "hobbies", "lore", "belles_lettres", "government", "learned"),
    "fiction": ("fiction", "mystery", "science_fiction", "adventure", "romance", "humor"),
}
"""The Brown corpus's own three groups of its categories."""

ACCENTS = {
    "Great Britain": {
        "en": "British, general",
        "en-gb-x-rp": "Received Pronunciation",
        "en-gb-x-gbcwmd": "West Midlands",
        "en-gb-x-gbclan": "Lancashire",
        "en-gb-scotland": "Scottish",
    },
    "Americas": {"en-us": "American", "en-us-nyc": "New York", "en-029": "Caribbean"},
}
"""What the synthesizer's codes mean. What follows the plus in a voice's name is the timbre."""


# What is computed ------------------------------------------------------------------------------------------------


def layouts(material: Material, perplexity: float = 30) -> dict[str, np.ndarray]:
    """Places of the clips in the plane (n, 2), by space, turned to differ little from those before the fusion.

    Queries are not drawn with them. Texts lie near texts and clips near clips: on a map of both, a query lies far from
    its own hits.
    """
    from threadpoolctl import threadpool_limits

    from clasp_lib.space import embed_in_plane

    spaces = {"before": material.before, "after": material.after, "search": material.search}
    with threadpool_limits(1):  # sums of several threads come in any order, and t-SNE makes much of little
        planes = {
            name: embed_in_plane(vectors, seed=0, perplexity=min(perplexity, (len(vectors) - 1) / 3))
            for name, vectors in spaces.items()
        }
    return {name: in_square(aligned(plane, planes["before"])) for name, plane in planes.items()}


def aligned(plane: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Turn and mirror (n, 2), centred, so that its rows come as near as they can to those of `target`."""
    from scipy.linalg import orthogonal_procrustes

    centred = plane - plane.mean(0)
    turn, _ = orthogonal_procrustes(centred, target - target.mean(0))
    return centred @ turn


def in_square(plane: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to `SIDE`, the same scale for both axes."""
    low, high = plane.min(0), plane.max(0)
    scale = SIDE / max((high - low).max(), 1e-9)
    return np.rint(SIDE / 2 + (plane - (low + high) / 2) * scale).astype(int)


class Share(NamedTuple):
    """How many clips have a nearest neighbour that shares something, before and after, and what guessing gives.

    `change` is "fewer", "more" or "as many": the 95% interval of the difference, by a bootstrap over clips, decides.
    """

    before: float
    after: float
    guess: float
    change: str


def shares_of_neighbours(before: np.ndarray, after: np.ndarray, labels: Sequence[str]) -> Share:
    """Compare the label of each clip with that of its nearest other clip in the full space."""
    from clasp_lib.significance import interval_over_items

    names = np.array(labels)
    same = []
    for vectors in (before, after):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        same.append((names[scores.argmax(1)] == names).astype(float))
    difference = interval_over_items((same[1] - same[0])[None])
    change = "fewer" if difference.high < 0 else "more" if difference.low > 0 else "as many"
    sizes = np.unique(names, return_counts=True)[1]
    guess = (sizes * (sizes - 1)).sum() / (len(names) * (len(names) - 1))
    return Share(same[0].mean(), same[1].mean(), guess, change)


def answers(material: Material) -> list[dict[str, Any]]:
    """For each query its best clips with their scores, and where the clip that is meant came."""
    scores = material.query_vectors @ material.search.T  # (queries, clips)
    found = []
    for query, row in zip(material.queries, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:HITS]
        hits = [[int(i), round(float(row[i]), 2)] for i in best]
        rank = 0 if query.about < 0 else 1 + int((row > row[query.about]).sum())
        found.append({"text": query.text, "kind": query.kind, "about": query.about, "rank": rank, "hits": hits})
    return found


def by_kind(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How well each kind of query finds the clip that it is about."""
    ranks: dict[str, list[int]] = {}
    for entry in found:
        if entry["rank"]:
            ranks.setdefault(entry["kind"], []).append(entry["rank"])
    return [
        {
            "kind": kind,
            "n": len(values),
            "first": sum(rank == 1 for rank in values),
            "in_hits": sum(rank <= HITS for rank in values),
            "median": float(np.median(values)),
        }
        for kind, values in ranks.items()
    ]


def accent_of(voice: str) -> tuple[str, str]:
    """The group and the name of a voice's accent."""
    code = voice.split("+")[0]
    for group, accents in ACCENTS.items():
        if code in accents:
            return group, accents[code]
    return "others", code


def groupings(material: Material) -> dict[str, Any]:
    """Two ways to colour the clips: families of names, and for each clip the number of its name."""
    accents = [accent_of(voice)[1] for voice in material.voices]
    ways = {
        "category": (FAMILIES, list(material.categories)),
        "accent": ({group: tuple(names.values()) for group, names in ACCENTS.items()}, accents),
    }
    found = {}
    for way, (families, labels) in ways.items():
        rest = tuple(sorted(set(labels) - {name for names in families.values() for name in names}))
        families = {**families, "others": rest} if rest else families
        kinds = [
            {"name": name.replace("_", " "), "family": family, "shape": shape, "colour": colour}
            for shape, (family, names) in enumerate(families.items())
            for colour, name in enumerate(names)
        ]
        number = {name: i for i, name in enumerate(name for names in families.values() for name in names)}
        found[way] = {
            "kinds": kinds,
            "of": [number[label] for label in labels],
            "near": shares_of_neighbours(material.before, material.after, labels)._asdict(),
        }
    return found


def gate_values(gates: Gates) -> dict[str, Any]:
    """Shares to three digits, and of each clip how many dimensions fall into each of `BINS` bins from 0 to 1."""
    counts = [np.histogram(row, BINS, (0, 1))[0].tolist() for row in gates.dimensions]
    windows = {str(row): np.round(values.astype(float), 3).tolist() for row, values in gates.windows.items()}
    return {
        "share": np.round(gates.share.astype(float), 3).tolist(),
        "bins": counts,
        "dimensions": gates.dimensions.shape[1],
        "windows": windows,
        "window": WINDOW_S,
        "hop": HOP_S,
    }


# What is written -------------------------------------------------------------------------------------------------


def mp3(wave: np.ndarray) -> bytes:
    """A clip as loud as it can be, at 14 kbit/s: enough for one synthetic voice, and all clips fit into the budget."""
    import soundfile

    loud = wave / max(float(np.abs(wave).max(initial=0.0)), 1e-6) * 0.9
    buffer = io.BytesIO()
    options = {"bitrate_mode": "AVERAGE", "compression_level": 0.98}
    soundfile.write(buffer, loud, RATE, format="MP3", subtype="MPEG_LAYER_III", **options)
    return buffer.getvalue()


def spectrogram(wave: np.ndarray) -> np.ndarray:
    """Log-mel picture, loud is dark and high is up: bytes (ROW, columns)."""
    import torch

    from clasp_lib.encoders.spectrogram import FLOOR_DB, log_mel

    columns = max(1, round(len(wave) / RATE * COLUMNS_A_SECOND))
    grey = -log_mel(wave).flip(0)[None, None] / FLOOR_DB  # 0 loud, 1 at the floor
    small = torch.nn.functional.interpolate(grey, (ROW, columns), mode="bilinear", antialias=True)[0, 0]
    return (small.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def write_sheets(material: Material, folder: Path) -> list[dict[str, Any]]:
    """One picture for each category, one row for each clip; returns where each clip is."""
    from PIL import Image

    rows: dict[str, list[int]] = {}
    for row, category in enumerate(material.categories):
        rows.setdefault(category, []).append(row)
    places: list[dict[str, Any]] = [{} for _ in material.texts]
    for category, members in rows.items():
        pictures = [spectrogram(material.waves[row]) for row in members]
        width = max(picture.shape[1] for picture in pictures)
        sheet = np.full((ROW * len(pictures), width), 255, np.uint8)
        for line, (row, picture) in enumerate(zip(members, pictures, strict=True)):
            sheet[line * ROW : (line + 1) * ROW, : picture.shape[1]] = picture
            places[row] = {"file": f"{category}.webp", "line": line}
        Image.fromarray(sheet).save(folder / f"{category}.webp", quality=35, method=6)
        for row in members:
            places[row] |= {"width": width, "lines": len(members)}
    return places


def number_of(row: int) -> str:
    """The name of a clip's sound file."""
    return f"{row:03d}.mp3"


def page_data(material: Material, places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the scripts read."""
    found = answers(material)
    return {
        "side": SIDE,
        "models": dict(material.models),
        "texts": list(material.texts),
        "timbres": [voice.partition("+")[2] for voice in material.voices],
        "seconds": [round(len(wave) / RATE, 2) for wave in material.waves],
        "layouts": {name: plane.tolist() for name, plane in layouts(material).items()},
        "colours": groupings(material),
        "queries": found,
        "kinds": by_kind(found),
        "gate": gate_values(material.gates),
        "sheets": {"row": ROW, "columns": COLUMNS_A_SECOND, "of": [list(place.values()) for place in places]},
    }


def plain_page(material: Material, data: Mapping[str, Any]) -> str:
    """A page without scripts: what the models find, and every clip with its player."""
    rows = []
    for query in [query for query in data["queries"] if query["kind"] == "in other words"][:10]:
        best, score = query["hits"][0]
        rows.append(
            f"<tr><td>{escape(query['text'])}<td>{escape(material.texts[best])}<td>{score:.2f}<td>{query['rank']}</tr>"
        )
    clips = [
        f"<li>{escape(text)} ({escape(category.replace('_', ' '))}, {escape(' '.join(accent_of(voice)[1:]))})<br>"
        f'<audio controls preload="none" aria-label="Clip {row + 1}" src="clips/{number_of(row)}"></audio>'
        for row, (text, category, voice) in enumerate(
            zip(material.texts, material.categories, material.voices, strict=True)
        )
    ]
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>All clips of the explorer</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>:root{color-scheme:light dark}'
        "body{max-width:45rem;margin:1rem auto;padding:0 1rem;font:1rem/1.5 sans-serif}td,th{padding:.3rem;"
        "text-align:left;vertical-align:top}audio{max-width:100%}li{margin:.5rem 0}</style>"
        "<h1>All clips of the explorer</h1><h2>Some queries, and what was found first</h2>"
        "<table><thead><tr><th>query<th>first clip<th>score<th>rank of the clip that was meant</tr></thead><tbody>"
        f"{''.join(rows)}</tbody></table><h2>Clips</h2><ol>{''.join(clips)}</ol></html>\n"
    )


def write(material: Material, out: Path) -> Path:
    """Write OUT/explorer as a whole.

    Raises:
        ValueError: it would be larger than the page's budget. Nothing is written then.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "explorer"
    with tempfile.TemporaryDirectory(prefix=".explorer-", dir=out) as unfinished:
        new = Path(unfinished, "explorer")
        (new / "clips").mkdir(parents=True)
        (new / "sheets").mkdir()
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the encoder of sounds lets other threads work
            for row, sound in enumerate(pool.map(mp3, material.waves)):
                (new / "clips" / number_of(row)).write_bytes(sound)
        data = page_data(material, write_sheets(material, new / "sheets"))
        data["megabytes"] = round(_size(new / "clips") / 1e6, 1)
        script = f"window.CLASP_EXPLORER={json.dumps(data, ensure_ascii=False, separators=(',', ':'))};\n"
        (new / "data.js").write_text(script, encoding="utf-8")
        (new / "clips.html").write_text(plain_page(material, data), encoding="utf-8")
        size = _size(new)
        if size > BUDGET_BYTES:
            raise ValueError(
                f"{folder}: would take {size} bytes, more than the {BUDGET_BYTES} that the page may carry."
            )
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(new, folder)
    return folder


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(arguments: Sequence[str]) -> str:
    """Build the folder and say what is in it."""
    if len(arguments) != 1:
        sys.exit("usage: python book/explorer_data.py OUT_FOLDER")
    material = gather()
    folder = write(material, Path(arguments[0]))
    size = _size(folder)
    return f"{folder}: {len(material.texts)} clips, {len(material.queries)} queries, {size / 1e6:.2f} MB"


if __name__ == "__main__":
    print(main(sys.argv[1:]))
