"""FLEURS, from the Parquet files into which the hub converts it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from clasp_lib.corpus import SPLITS, Split
from clasp_lib.errors import DatasetError, OnError
from clasp_lib.published_corpora.clips import AudioFormat, Clip, check_format, collect, find_file
from clasp_lib.speech_brown import Build

HUB_ID = "google/fleurs"
BRANCH = "refs/convert/parquet"


def read_fleurs(
    source: str | Path = HUB_ID,
    language: str = "en_us",
    *,
    splits: Sequence[Split] = SPLITS,
    raw: bool = False,
    audio_format: AudioFormat | None = None,
    on_error: OnError = "raise",
) -> Build:
    """FLEURS (Conneau et al. 2022, arXiv 2205.12446) in one of its 102 languages, with its own splits.

    It is read from the Parquet files of the branch `refs/convert/parquet`: the corpus itself is a script, which
    `datasets` runs no more. For "en_us" they take 1.7 GB (train), 0.2 GB (validation) and 0.4 GB (test), and the
    clips as much memory; 16-bit FLAC needs a third of it.

    Several people read each sentence. Their recordings share `sentence_id`, which is the sentence's number in FLoRes,
    so that its translations in other languages share it too. Score with all of them as positives.

    `voice` is empty, because FLEURS does not say who speaks. By its card the speakers of train are others than those
    of validation and test, so training on the first and testing on the last is safe; validation and test may share
    speakers.

    Args:
        source: an id on the hub, or a local folder laid out as the branch: `en_us/test/0000.parquet` ...
        language: as FLEURS names it, for example "en_us", "fa_ir", "de_de", "fr_fr", "cmn_hans_cn".
        raw: take `raw_transcription` (capitals, punctuation) for the text, not the cleaned `transcription`.
        audio_format, on_error: see `read_speech_brown`.

    Raises:
        DatasetError: no such language or split, a file that is missing or damaged.
        AudioError, TextError: a recording that cannot be used, with `on_error="raise"`.
    """
    from datasets import DatasetDict

    check_format(audio_format)
    dataset, skipped = DatasetDict(), []
    for split in splits:
        where = f"{language}/{split}"
        clips = _clips(_files(source, where), where, "raw_transcription" if raw else "transcription")
        dataset[split], left_out = collect(clips, where, audio_format=audio_format, on_error=on_error)
        skipped += left_out
    return Build(dataset, skipped)


def _files(source: str | Path, where: str) -> list[Path]:
    numbered = (find_file(source, f"{where}/{number:04d}.parquet", BRANCH) for number in itertools.count())
    files = [file for file in itertools.takewhile(lambda file: file is not None, numbered) if file]
    if not files:
        raise DatasetError(
            f"{source}: holds no {where}/0000.parquet. Languages are named as 'en_us', splits {', '.join(SPLITS)}."
        )
    if Path(source).is_dir() and len(files) < len(list((Path(source) / where).glob("*.parquet"))):
        raise DatasetError(f"{source}: {where}/{len(files):04d}.parquet is missing between others. Download it.")
    return files


def _clips(files: Sequence[Path], where: str, text_column: str) -> Iterator[Clip]:
    import pyarrow as pa
    import pyarrow.parquet

    names = ["id", "path", "audio", text_column]
    for file in files:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            if missing := set(names) - set(table.schema_arrow.names):
                raise DatasetError(f"{file}: lacks the columns {', '.join(sorted(missing))}, so it is not FLEURS.")
            for batch in table.iter_batches(batch_size=64, columns=names):
                for row in batch.to_pylist():
                    yield _clip(row, where, text_column)
        except (OSError, pa.ArrowException, AttributeError, TypeError) as error:
            raise DatasetError(f"{file}: is not a Parquet file of FLEURS ({error}). Download it again.") from error


def _clip(row: dict, where: str, text_column: str) -> Clip:
    audio = row["audio"] or {}
    name = PurePosixPath(audio.get("path") or row["path"]).name
    text = (row[text_column] or "").strip()
    return Clip(f"{where}/{name}", f"fleurs-{row['id']}", text, "", "", name, lambda: audio.get("bytes") or b"")
