"""How much of what a system can do is left when the sound is bad.

A system is any function from waves at 16 kHz to vectors in the space of the texts. The usual four are short:

    quiet = {"show_progress_bar": False}
    clasp = CLASP.from_pretrained("pocket")
    speech = CLASP.from_pretrained("pocket-speech-only")
    picture = CLASP(fusion, *encoders, "picture_only")  # a fusion trained on pictures alone
    def transcript(waves):
        said = transcriber.transcribe(waves)
        return text_encoder.encode([text or "." for text in said])  # what nobody understood still needs a vector
    systems = {
        "CLASP": lambda waves: clasp.encode_speech(waves, **quiet),
        "speech only": lambda waves: speech.encode_speech(waves, **quiet),
        "picture only": lambda waves: picture.encode_speech(waves, **quiet),
        "transcript": transcript,
    }

Everything is measured by sentence: of several recordings of one, which are not independent, the mean counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.disturbances import DISTURBANCES, Disturbed, check_strength, disturb
from clasp_lib.errors import ClaspError
from clasp_lib.metrics import per_query, rank_queries
from clasp_lib.run_state import load_state, save_state
from clasp_lib.significance import RESAMPLES, bootstrap_groups, holm, sign_flip_test
from clasp_lib.significance.resampling import number_groups

System: TypeAlias = Callable[[list[np.ndarray]], np.ndarray]
Row: TypeAlias = dict[str, Any]

CLEAN = "clean"
"""The name of no disturbance."""

TALKERS = 6
"""How many other clips a babble is made of."""

MEASURES = ("hits_at_1", "mrr")

_CHUNK = 256  # clips disturbed at once: bounds the memory
_FORMAT = 1  # of the stored files; another one is measured anew


@dataclass(frozen=True)
class Heard:
    """What a system made of all clips through one disturbance, in one direction of retrieval.

    Attributes:
        strength: as asked for, None when clean. real_strength: as it was; of a codec the bit rate over all clips.
        direction: "speech_to_text" or "text_to_speech".
        clips: how many. scores: by measure, one number for each sentence `(sentences,)`.
    """

    system: str
    disturbance: str
    strength: float | None
    real_strength: float | None
    direction: str
    clips: int
    scores: Mapping[str, np.ndarray]


def robustness_curves(
    clips: Sequence[np.ndarray],
    texts: np.ndarray,
    ids: Sequence[Hashable],
    systems: Mapping[str, System],
    disturbances: Mapping[str, Sequence[float]],
    seed: int = 0,
    folder: str | Path | None = None,
    *,
    versions: Mapping[str, str] | None = None,
    measures: Sequence[str] = MEASURES,
    resamples: int = RESAMPLES,
    show_progress_bar: bool = True,
) -> list[Row]:
    """Each system, through each disturbance at each strength, and clean: `curve_rows` of `hear`, which see."""
    heard = hear(
        clips, texts, ids, systems, disturbances, seed, folder, versions=versions, show_progress_bar=show_progress_bar
    )
    return curve_rows(heard, measures, resamples, seed)


def hear(
    clips: Sequence[np.ndarray],
    texts: np.ndarray,
    ids: Sequence[Hashable],
    systems: Mapping[str, System],
    disturbances: Mapping[str, Sequence[float]],
    seed: int = 0,
    folder: str | Path | None = None,
    *,
    versions: Mapping[str, str] | None = None,
    show_progress_bar: bool = True,
) -> list[Heard]:
    """The scores of each system, sentence by sentence, in both directions, clean and through each disturbance.

    Speech to text: a disturbed clip looks for its text among all. Text to speech: a text looks for its clips among all,
    every one of them disturbed. All systems hear the same waves. Texts are not disturbed, and of equal ids count once.

    Args:
        clips: n waves `(samples,)` at 16 kHz.
        texts: (n, d), the vector of each clip's text. Systems of another text space are a call of their own; the same
            seed gives the same waves.
        ids: which texts are the same. A clip's babble is made of `TALKERS` clips with other ids.
        disturbances: by name (`clasp_lib.disturbances.DISTURBANCES`) the strengths wanted.
        folder: keeps the scores of every system and strength as soon as they are known; what it holds is not measured
            again. None keeps nothing.
        versions: what each system is, e.g. `model.fingerprint`. The folder knows a system by its name and this: scores
            of other weights are left alone and measured beside them.

    Raises:
        ClaspError: nothing to measure, lengths that do not fit, an unknown disturbance, a strength it cannot have (all
            before anything is measured); a system whose vectors are not (clips, d) or not finite.
        AudioError: a clip that cannot be disturbed so, e.g. cut to nothing; the message names clip and disturbance.
    """
    texts, versions = np.asarray(texts, np.float32), versions or {}
    _check(clips, texts, ids, systems, disturbances, versions)
    cells: list[tuple[str, float | None]] = [(CLEAN, None)]
    cells += [(name, strength) for name, strengths in disturbances.items() for strength in dict.fromkeys(strengths)]
    data = _digest(clips, texts, ids)
    codes = number_groups(ids, len(ids))
    heard: list[Heard] = []
    with tqdm(total=len(cells) * len(systems), desc="robustness", disable=not show_progress_bar) as bar:
        for name, strength in cells:
            files = {s: _file(folder, s, versions.get(s, ""), name, strength, seed, data) for s in systems}
            known = {s: _load(file) for s, file in files.items() if file is not None and file.exists()}
            missing = {s: encode for s, encode in systems.items() if s not in known}
            found = _measure(clips, texts, codes, missing, name, strength, seed) if missing else {}
            for system, file in files.items():
                if system in found and file is not None:
                    _save(file, found[system])
                heard += found[system] if system in found else known[system]
                bar.update()
    return heard


def curve_rows(
    heard: Sequence[Heard], measures: Sequence[str] = MEASURES, resamples: int = RESAMPLES, seed: int = 0
) -> list[Row]:
    """Tidy rows: one for each system, disturbance, strength, direction and measure.

    Each has `system`, `disturbance`, `strength`, `real_strength`, `unit`, `direction`, `measure`; `value`, `low`,
    `high`: the mean over `n` sentences with a 95% interval (`clasp_lib.significance.bootstrap_groups`); `difference`,
    `difference_low`, `difference_high`: the same for what it has more than the clean run, sentence by sentence;
    `p_value` of a sign-flip test of that difference, and `corrected` for all rows of the same direction and measure
    (Holm 1979); `n`, `clips`, `resamples`, `seed`. Of clean rows the differences and p-values are None.

    Raises:
        ClaspError: an unknown measure, or one system's clean run is missing.
    """
    clean = {(part.system, part.direction): part for part in heard if part.disturbance == CLEAN}
    rows = []
    for direction in dict.fromkeys(part.direction for part in heard):
        parts = [part for part in heard if part.direction == direction]
        before = [clean.get((part.system, direction)) for part in parts]
        for measure in measures:
            rows += _panel(parts, before, measure, resamples, seed)
    return rows


def compare_rows(
    heard: Sequence[Heard],
    first: str,
    second: str,
    measures: Sequence[str] = MEASURES,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Row]:
    """Two systems through the same disturbances: who is better there, and who loses more.

    Rows as of `curve_rows`, with `first` and `second` in place of `system`: `value` is first minus second at that
    strength; `difference` how much that has changed since clean (below 0: `first` has lost more), with its p-values.

    Raises:
        ClaspError: one of the two was not measured.
    """
    by_cell = {(p.system, p.disturbance, p.strength, p.direction): p.scores for p in heard}
    pairs = []
    for part in (part for part in heard if part.system == first):
        theirs = by_cell.get((second, part.disturbance, part.strength, part.direction))
        if theirs is None:
            raise ClaspError(f"system {second!r} was not measured with {part.disturbance} {part.strength}.")
        pairs.append(replace(part, scores={name: mine - theirs[name] for name, mine in part.scores.items()}))
    if not pairs:
        raise ClaspError(f"system {first!r} was not measured.")
    rows = curve_rows(pairs, measures, resamples, seed)
    return [{"first": first, "second": second} | {k: v for k, v in row.items() if k != "system"} for row in rows]


def sentence_scores(
    speech: np.ndarray, texts: np.ndarray, ids: Sequence[Hashable], queries: np.ndarray | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """By direction and measure one number for each sentence, in the order in which they first occur.

    Args:
        speech, texts: (n, d), row by row a clip and its text. ids: n, which texts are the same.
        queries: numbers of the clips that ask, `(queries,)`; all if not given. The candidates are all in any case.

    Raises:
        ClaspError: shapes that do not fit, or values that are not finite.
    """
    codes = number_groups(ids, len(ids))
    sentences, first = np.unique(codes, return_index=True)
    asked = np.arange(len(codes)) if queries is None else queries
    wanted, row = np.unique(codes[asked], return_inverse=True)  # (sentences asked for,), (queries,)
    mine = first[np.searchsorted(sentences, wanted)]
    spoken = per_query(rank_queries(speech[asked], texts[first], codes[asked].tolist(), sentences.tolist()))
    written = per_query(rank_queries(texts[mine], speech, wanted.tolist(), codes.tolist()))
    by_sentence = {name: np.bincount(row, values) / np.bincount(row) for name, values in spoken.items()}
    return {"speech_to_text": by_sentence, "text_to_speech": dict(written)}


def _panel(parts: Sequence[Heard], clean: Sequence[Heard | None], measure: str, resamples: int, seed: int) -> list[Row]:
    """The rows of one direction and one measure: resampled together, corrected together."""
    scores, changes = {}, {}  # by the number of the row (sentences,) each
    for i, (part, before) in enumerate(zip(parts, clean, strict=True)):
        if before is None:
            raise ClaspError(f"the clean run of system {part.system!r} is missing, which all else is held against.")
        if measure not in part.scores:
            raise ClaspError(f"measure {measure!r} is not known. Choose from {', '.join(part.scores)}.")
        scores[f"{i}"] = part.scores[measure]
        if part.disturbance != CLEAN:
            changes[f"{i} changed"] = part.scores[measure] - before.scores[measure]
    found = bootstrap_groups(scores | changes, None, resamples, seed)
    p_values = {name: sign_flip_test(change, resamples, seed) for name, change in changes.items()}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    rows = []
    for i, part in enumerate(parts):
        change = found.get(f"{i} changed", (None, None, None))
        rows.append(
            {
                "system": part.system,
                "disturbance": part.disturbance,
                "strength": part.strength,
                "real_strength": part.real_strength,
                "unit": None if part.disturbance == CLEAN else DISTURBANCES[part.disturbance].unit,
                "direction": part.direction,
                "measure": measure,
                **found[f"{i}"]._asdict(),
                **dict(zip(("difference", "difference_low", "difference_high"), change, strict=True)),
                "p_value": p_values.get(f"{i} changed"),
                "corrected": corrected.get(f"{i} changed"),
                "n": len(part.scores[measure]),
                "clips": part.clips,
                "resamples": resamples,
                "seed": seed,
            }
        )
    return rows


def _measure(
    clips: Sequence[np.ndarray],
    texts: np.ndarray,
    codes: np.ndarray,
    systems: Mapping[str, System],
    name: str,
    strength: float | None,
    seed: int,
) -> dict[str, list[Heard]]:
    """Disturb all clips once, a chunk at a time, and let all `systems` hear them."""
    vectors: dict[str, list[np.ndarray]] = {system: [] for system in systems}
    real = np.zeros(len(clips))
    for start in range(0, len(clips), _CHUNK):
        chunk = []
        for number in range(start, min(start + _CHUNK, len(clips))):
            wave, real[number] = _disturbed(clips, codes, number, name, strength, seed)
            chunk.append(wave)
        for system, encode in systems.items():
            found = np.asarray(encode(list(chunk)), np.float32)
            if found.shape != (len(chunk), texts.shape[1]) or not np.isfinite(found).all():
                raise ClaspError(
                    f"system {system!r}: gave vectors of shape {found.shape}, or not finite, for {name}; "
                    f"expected ({len(chunk)}, {texts.shape[1]})."
                )
            vectors[system].append(found)
    real_strength = None if strength is None else float(np.average(real, weights=[len(clip) for clip in clips]))
    results = {}
    for system, parts in vectors.items():
        scores = sentence_scores(np.concatenate(parts), texts, codes.tolist())
        results[system] = [
            Heard(system, name, strength, real_strength, direction, len(clips), by_measure)
            for direction, by_measure in scores.items()
        ]
    return results


def _disturbed(
    clips: Sequence[np.ndarray], codes: np.ndarray, number: int, name: str, strength: float | None, seed: int
) -> Disturbed:
    """The clip as it is heard. What happens to it depends on the seed, its number and, for a babble, the others."""
    if strength is None:
        return Disturbed(np.asarray(clips[number], np.float32), 0.0)
    others: list[np.ndarray] = []
    if name == "babble":
        strangers = np.flatnonzero(codes != codes[number])
        rng = np.random.default_rng([seed, number])
        drawn = rng.choice(strangers, min(TALKERS, len(strangers)), replace=False)
        others = [clips[i] for i in drawn]
    try:
        return disturb(clips[number], name, strength, (seed, number), others)
    except ClaspError as error:
        raise type(error)(f"clip {number}, {name} {strength:g}: {error}") from error


def _check(
    clips: Sequence[np.ndarray],
    texts: np.ndarray,
    ids: Sequence[Hashable],
    systems: Mapping[str, System],
    disturbances: Mapping[str, Sequence[float]],
    versions: Mapping[str, str],
) -> None:
    if texts.ndim != 2 or not len(clips) == len(texts) == len(ids) or len(clips) == 0:
        raise ClaspError(
            f"{len(clips)} clips, text vectors of shape {texts.shape} and {len(ids)} ids do not fit; "
            "give n clips, (n, d) text vectors and n ids."
        )
    if len(set(ids)) < 2:
        raise ClaspError("ids: name fewer than two sentences, among which nothing can be searched.")
    if not systems:
        raise ClaspError("systems: there are none to measure.")
    if unknown := sorted(set(versions) - set(systems)):
        raise ClaspError(f"versions: names {unknown[0]!r}, which is not among the systems {', '.join(systems)}.")
    for name, strengths in disturbances.items():
        for strength in strengths:
            check_strength(name, strength)


def _digest(clips: Sequence[np.ndarray], texts: np.ndarray, ids: Sequence[Hashable]) -> str:
    digest = hashlib.sha256(repr((len(clips), texts.shape, list(ids))).encode())
    digest.update(texts.tobytes())
    for clip in clips:
        digest.update(str(len(clip)).encode() + np.asarray(clip, np.float32).tobytes())
    return digest.hexdigest()


def _file(
    folder: str | Path | None, system: str, version: str, name: str, strength: float | None, seed: int, data: str
) -> Path | None:
    """Where the scores are kept: the name is readable, and tells apart all that decides what they are."""
    if folder is None:
        return None
    identity = json.dumps([_FORMAT, system, version, name, strength, seed, data])
    words = "-".join(re.findall(r"[a-z0-9.]+", f"{system} {name} {'' if strength is None else strength}".lower()))
    return Path(folder) / f"{words}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"


def _save(file: Path, parts: Sequence[Heard]) -> None:
    tensors = {
        f"{part.direction}.{measure}": torch.from_numpy(np.asarray(scores, float))
        for part in parts
        for measure, scores in part.scores.items()
    }
    kept = [f.name for f in fields(Heard) if f.name not in ("scores", "direction")]
    save_state(file, tensors, {name: getattr(parts[0], name) for name in kept})


def _load(file: Path) -> list[Heard]:
    tensors, facts = load_state(file)
    scores: dict[str, dict[str, np.ndarray]] = {"speech_to_text": {}, "text_to_speech": {}}
    for name, tensor in tensors.items():
        direction, _, measure = name.partition(".")
        scores[direction][measure] = tensor.numpy()
    return [Heard(**facts, direction=direction, scores=by_measure) for direction, by_measure in scores.items()]
