"""Tiny corpora in the layout of the published ones: Brown's zip, Speech Brown, FLEURS and Common Voice.

Sentences are Pocket Brown's, and eSpeak NG speaks them, so the clips can be listened to; there are just few of them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from clasp_lib.audio import encode_audio
from clasp_lib.corpus import Sentence, pocket_brown
from clasp_lib.synthesis import ESpeak

BROWN = "nltk_data/corpora/brown.zip"
SPEECH_BROWN = "llm-lab/SpeechBrown"
FLEURS = "google/fleurs"
COMMON_VOICE = "cv-corpus-tiny/en"

_EACH = 48
"""Sentences of a category in the tiny Brown."""


def write_corpora(folder: Path) -> None:
    """Write all four below `folder`, each under its name on the hub, or of its archive."""
    by_category: dict[str, list[Sentence]] = {}
    for sentence in pocket_brown():
        by_category.setdefault(sentence.category, []).append(sentence)
    sentences = [sentence for group in by_category.values() for sentence in group[:_EACH]]
    _brown(folder / BROWN, sentences)
    two = [sentence for group in list(by_category.values())[:2] for sentence in group[_EACH : _EACH + 20]]
    _speech_brown(folder / SPEECH_BROWN, two)
    spare = iter([sentence for group in list(by_category.values())[2:] for sentence in group[_EACH : _EACH + 4]])
    _fleurs(folder / FLEURS, spare)
    _common_voice(folder / COMMON_VOICE, spare)


def _clips(n: int, split: str, sampling_rate: int, format: str, sentences: list[Sentence]) -> Iterator[bytes]:
    engine = ESpeak(sampling_rate)
    for sentence, voice in zip(sentences, engine.voices(split, n, seed=1), strict=True):  # type: ignore[arg-type]
        yield encode_audio(engine.synthesize(sentence.text, voice), sampling_rate, format)


def _brown(file: Path, sentences: list[Sentence]) -> None:
    """As NLTK packs it: `word/tag`, one file a category here, and a table of categories."""
    file.parent.mkdir(parents=True)
    categories = sorted({sentence.category for sentence in sentences})
    names = {category: f"c{chr(ord('a') + i)}01" for i, category in enumerate(categories)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("brown/cats.txt", "".join(f"{names[c]} {c}\n" for c in categories))
        for category in categories:
            lines = [sentence.text for sentence in sentences if sentence.category == category]
            tagged = (" ".join(f"{word}/nn" for word in [*line[:-1].split(), line[-1]]) for line in lines)
            archive.writestr(f"brown/{names[category]}", "\n\n\t" + "\n\n\t".join(tagged) + "\n\n")


def _speech_brown(folder: Path, sentences: list[Sentence]) -> None:
    """Two parts of twenty clips, with the quirks of the original: see `clasp_lib.published_corpora`."""
    folder.mkdir(parents=True)
    parts: dict[str, list[dict]] = {"part1": [], "part2": []}
    labels = []
    clips = _clips(len(sentences), "test", 22_050, "WAV", sentences)
    zips = {part: zipfile.ZipFile(folder / f"dataset_{part}.zip", "w") for part in parts}
    for number, (sentence, clip) in enumerate(zip(sentences, clips, strict=True), 1):
        part = "part1" if number <= len(sentences) // 2 else "part2"
        name = f"audio_{number}.wav"
        entry = {"id": number, "file_path": f"dataset/{part}/audios/{name}", "text": sentence.text}
        parts[part].append(entry)
        labels.append(entry | {"category": sentence.category})
        zips[part].writestr(f"dataset_{part}/audios/{name}", clip)
    for archive in zips.values():
        archive.close()
    (folder / "global_metadata.json").write_text(json.dumps(labels), encoding="utf-8")
    (folder / "localized_metadata.json").write_text(json.dumps(parts), encoding="utf-8")


def _fleurs(folder: Path, spare: Iterator[Sentence]) -> None:
    """The Parquet conversion: a sentence in several recordings, no speaker, text with and without capitals."""
    import pyarrow
    import pyarrow.parquet

    for split, n in (("train", 3), ("validation", 2), ("test", 3)):
        read = [(number, sentence) for number, sentence in enumerate(islice(spare, n), 1) for _ in range(2)]
        clips = _clips(len(read), split, 16_000, "WAV", [sentence for _, sentence in read])
        rows = [
            {
                "id": number,
                "path": f"{split}-{i}.wav",
                "audio": {"bytes": clip, "path": f"{split}-{i}.wav"},
                "transcription": sentence.text.lower().rstrip(".?!"),
                "raw_transcription": sentence.text,
            }
            for i, ((number, sentence), clip) in enumerate(zip(read, clips, strict=True))
        ]
        file = folder / "en_us" / split / "0000.parquet"
        file.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def _common_voice(folder: Path, spare: Iterator[Sentence]) -> None:
    """A release of one language: tables, and clips as MP3."""
    (folder / "clips").mkdir(parents=True)
    for table, split, n in (("train", "train", 4), ("dev", "validation", 2), ("test", "test", 2)):
        sentences = list(islice(spare, n))
        lines = ["client_id\tpath\tsentence\tup_votes\tdown_votes"]
        for i, (sentence, clip) in enumerate(zip(sentences, _clips(n, split, 32_000, "MP3", sentences), strict=True)):
            name = f"common_voice_en_{table}{i}.mp3"
            (folder / "clips" / name).write_bytes(clip)
            lines.append(f"{split}-{i // 2}\t{name}\t{sentence.text}\t2\t0")
        (folder / f"{table}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
