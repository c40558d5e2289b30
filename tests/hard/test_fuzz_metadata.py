"""Mutants of tables and metadata: read as a table of what lies inside the folder, or refused by name."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clasp_lib.audio import encode_audio
from clasp_lib.corpus import CATEGORIES, brown
from clasp_lib.published_corpora import read_common_voice, speech_brown_sentences
from clasp_lib.speech_brown import read_recordings
from hard.conftest import Ended
from hard.hammer import Hammer, Reader, hammer_on, in_two_parts
from hard.mutants import json_mutant, mutant


def recordings_below(folder: Path, secret: str) -> list[str]:
    """Three short recordings in a folder, and one beside it that no table may reach."""
    time = np.arange(1_600) / 8_000
    for name in ("one.wav", "two.wav", "sub/three.wav", f"../{secret}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        hertz = 200 + 50 * len(name)
        (folder / name).write_bytes(encode_audio(0.5 * np.sin(2 * np.pi * hertz * time), 8_000, "WAV"))
    return ["one.wav", "two.wav", "sub/three.wav"]


def tables(outside: Path) -> list[bytes]:
    """Several ways to write a table, two of which lead out of the folder."""
    plain = "file,text,speaker,category,year\none.wav,A first sentence.,anna,news,1990\n"
    plain += 'two.wav,"A second, with a comma.",bela,fiction,2001\nsub/three.wav,سومین جمله,anna,news,1999\n'
    made = [plain, plain.replace("\n", "\r\n"), "\ufeff" + plain, plain.replace("one.wav", '"one.wav"')]
    made += ["file,text\none.wav,short\n", "id,file,text\na,one.wav,x\nb,two.wav,y\n"]
    made += [f"file,text\n../{outside.name},a\none.wav,b\n", f"file,text\n{outside},a\none.wav,b\n"]
    return [text.encode() for text in made]


def dataset_table(folder: Path) -> Reader:
    """`read_recordings`: the table of a dataset."""
    inside, outside = folder / "corpus", folder / "outside.wav"
    inside.mkdir()
    recordings_below(inside, outside.name)
    secret = outside.read_bytes()

    def read(data: bytes) -> None:
        (inside / "metadata.csv").write_bytes(data)
        found, skipped = read_recordings(inside, on_error="skip")
        assert len(found) + len(skipped) > 0 and len(set(found["id"])) == len(found)
        for row in found:
            assert row["audio"]["bytes"] != secret and row["text"] and row["sentence_id"] and row["duration"] > 0
        assert all(name and reason for name, reason in skipped)
        read_recordings(inside)  # where nothing may be skipped, the same or an error

    return Reader(tables(outside), read, ("metadata.csv", *(f"{inside}/",)))


def index_table(folder: Path) -> Reader:
    """`recordings_of`: the table of a collection that is to be indexed."""
    from clasp_lib.index.recordings import recordings_of

    inside, outside = folder / "collection", folder / "outside.wav"
    inside.mkdir()
    recordings_below(inside, outside.name)

    def read(data: bytes) -> None:
        (inside / "metadata.csv").write_bytes(data)
        found = recordings_of(inside)
        assert len({recording.id for recording in found}) == len(found) > 0
        for recording in found:
            assert Path(recording.file).resolve().is_relative_to(inside.resolve())
            assert all(isinstance(value, str | int | float) for value in recording.metadata.values())
            recording.digest("")

    return Reader(tables(outside), read, ("metadata.csv", *(f"{inside}/",)))


def common_voice_table(folder: Path) -> Reader:
    """A table of Common Voice, with made-up clips."""
    corpus = folder / "corpus"
    time = np.arange(2_400) / 16_000
    for name in ("a.mp3", "b.mp3"):
        (corpus / "clips").mkdir(parents=True, exist_ok=True)
        (corpus / "clips" / name).write_bytes(encode_audio(0.5 * np.sin(1_500 * time), 16_000, "MP3"))
    table = 'client_id\tpath\tsentence\tup_votes\n1f\ta.mp3\tA first sentence.\t2\n2e\tb.mp3\tA "second" one.\t2\n'

    def read(data: bytes) -> None:
        (corpus / "test.tsv").write_bytes(data)
        built = read_common_voice(corpus, tables=("test",), on_error="skip")
        assert set(built.dataset["test"]["id"]) <= {"a.mp3", "b.mp3"}
        assert all(voice.startswith("speaker-") for voice in built.dataset["test"]["voice"])

    files = [table.encode(), table.replace("\n", "\r\n").encode(), table.replace(".mp3", "").encode()]
    return Reader(files, read, ("test.tsv", "test: names"))


def speech_brown_metadata(folder: Path) -> Reader:
    """The JSON file of the published corpus."""
    entry = {"id": 1, "text": "A sentence.", "file_path": "dataset/part1/audio_1.wav"}
    other = {"id": 2, "text": "Another.", "audio_file_path": "dataset_part1/audio_2.wav"}
    labels = [{"id": 1, "category": "news"}, {"id": 2, "category": "lore"}]
    (folder / "global_metadata.json").write_text(json.dumps(labels), "utf-8")

    def read(data: bytes) -> None:
        (folder / "localized_metadata.json").write_bytes(data)
        for sentence in speech_brown_sentences(folder):
            assert isinstance(sentence.id, str) and isinstance(sentence.text, str)

    parts = [{"part1": [entry, other]}, {"part1": [entry], "part2": [other]}]
    files = [json.dumps(part, indent=indent).encode() for part in parts for indent in (None, 1)]

    def make(number: int) -> bytes:
        return json.dumps(json_mutant(parts, number)).encode() if number % 2 else mutant(files, number)

    return Reader(files, read, ("localized_metadata.json",), make)


def brown_zip(folder: Path) -> Reader:
    """NLTK's zip of the Brown corpus, in small."""
    files = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr("brown/cats.txt", "ca01 news\ncb02 editorial\n")
            archive.writestr("brown/ca01", "\n\tThe/at jury/nn said/vbd so/rb ./.\n\n\tIt/pps did/dod ./.\n")
            archive.writestr("brown/cb02", "\tOpinions/nns differ/vb ./.\n" * 20)
        files.append(buffer.getvalue())

    def read(data: bytes) -> None:
        (folder / "brown.zip").write_bytes(data)
        for sentence in brown(folder / "brown.zip"):
            assert isinstance(sentence.text, str) and sentence.category in CATEGORIES

    return Reader(files, read, ("brown.zip",))


READERS = ("dataset_table", "index_table", "common_voice_table", "speech_brown_metadata", "brown_zip")


@in_two_parts
@pytest.mark.parametrize("kind", READERS)
def test_no_mutant_of_a_table_does_harm(kind: str, numbers: range, hammer: Hammer, ended: Ended) -> None:
    counts = hammer_on(hammer, f"hard.test_fuzz_metadata:{kind}", numbers, ended)
    assert counts["refused"] > len(numbers) / 10
