"""What the published corpora share: files from a folder or from the hub, and clips that are read one by one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import soundfile
from tqdm import tqdm

from clasp_lib.audio import SAMPLING_RATE, encode_audio, load_audio
from clasp_lib.encoders.checkpoints import is_hub_id
from clasp_lib.errors import ClaspError, DatasetError, OnError, Skipped, TextError
from clasp_lib.speech_brown import dataset_of

if TYPE_CHECKING:
    from datasets import Dataset

AudioFormat: TypeAlias = Literal["FLAC", "OGG"]

_BLOCK = 256  # rows: one Arrow array must stay below 2 GiB


class Clip(NamedTuple):
    """A clip that has not been read yet: `read` returns its bytes, or raises a `ClaspError`."""

    id: str
    sentence_id: str
    text: str
    category: str
    voice: str
    path: str
    read: Callable[[], bytes]


def find_file(source: str | Path, name: str, revision: str | None = None) -> Path | None:
    """A file of a local folder, or of a dataset on the hub once it is downloaded; None where there is no such file.

    Raises:
        DatasetError: `source` is neither, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        return file if (file := Path(source) / name).is_file() else None
    if not is_hub_id(str(source)):
        raise DatasetError(f"{source}: is neither a folder nor an id on the hub, which looks like 'owner/name'.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(str(source), name, repo_type="dataset", revision=revision))
    except Exception as error:  # the hub raises a dozen kinds
        # The second kind means that the hub did not answer, which says nothing about the file.
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise DatasetError(
            f"{source}: there is no such folder, and the hub does not give {name} ({error}). "
            "Check the name and the network, or download the corpus and give its folder."
        ) from error


def check_format(audio_format: str | None) -> None:
    """Refuse a format before the first clip: `on_error="skip"` would leave out all of them."""
    if audio_format not in (None, "FLAC", "OGG"):
        raise DatasetError(f"audio_format {audio_format!r}: choose 'FLAC' or 'OGG', or None to keep the files.")


def collect(
    clips: Iterable[Clip],
    what: str,
    *,
    total: int | None = None,
    most: int | None = None,
    audio_format: AudioFormat | None = None,
    on_error: OnError = "raise",
) -> tuple[Dataset, list[Skipped]]:
    """Read clips into a dataset, each decoded once to its end, and report those that are left out.

    Args:
        what: their name in messages.
        total: how many there are, for the progress bar.
        most: stop when so many have been taken.

    Raises:
        DatasetError: an id that occurs twice.
        ClaspError: a clip that cannot be used, with `on_error="raise"`.
    """
    from datasets import concatenate_datasets

    blocks: list[Dataset] = []
    rows: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    expected = min((n for n in (total, most) if n is not None), default=None)
    for clip in tqdm(clips, desc=f"reading {what}", total=expected, unit="clip"):
        if len(seen) - len(skipped) == most:
            break
        if clip.id in seen:
            raise DatasetError(f"{what}: names the clip {clip.id} twice.")
        seen.add(clip.id)
        try:
            if not clip.text:
                raise TextError(f"{clip.id}: has no text.")
            audio, seconds = _audio(clip, audio_format)
        except ClaspError as error:
            if on_error == "raise":
                raise
            skipped.append(Skipped(clip.id, str(error)))
            continue
        row = {"id": clip.id, "sentence_id": clip.sentence_id, "text": clip.text, "category": clip.category}
        rows.append(row | {"voice": clip.voice, "audio": audio, "duration": seconds})
        if len(rows) == _BLOCK:
            blocks.append(dataset_of(rows))
            rows = []
    return concatenate_datasets([*blocks, dataset_of(rows)]), skipped


def _audio(clip: Clip, audio_format: AudioFormat | None) -> tuple[dict[str, Any], float]:
    """The audio column of a clip, and its length in seconds."""
    data = clip.read()
    try:
        rate = soundfile.info(io.BytesIO(data)).samplerate
    except soundfile.SoundFileError:
        rate = SAMPLING_RATE  # `load_audio` says what is wrong
    samples = load_audio({"bytes": data, "path": clip.path}, rate)  # (samples,)
    path = clip.path
    if audio_format:
        data = encode_audio(samples, rate, audio_format)
        path = str(PurePosixPath(path).with_suffix(f".{audio_format.lower()}"))
    return {"bytes": data, "path": path}, len(samples) / rate
