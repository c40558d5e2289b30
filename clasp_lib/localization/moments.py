"""Compare a query with the windows of a recording: the best of them that do not overlap are its moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from tqdm import tqdm

from clasp_lib.audio import SAMPLING_RATE, AudioItem, describe, duration, stream_audio, stream_chunks
from clasp_lib.errors import AudioError, ClaspError
from clasp_lib.localization.cutting import BLOCK_S, Cutting
from clasp_lib.localization.windows import cut

Recording: TypeAlias = "AudioItem | Iterable[np.ndarray]"

OVERLAP = 0.5
"""Windows that share more of the shorter one's time than this are about the same moment."""

LENGTH_WEIGHT = 0.15
"""How much it counts against a window that it is longer or shorter than expected; see `locate`."""

_LETTERS_PER_SECOND = 15.3
_CPU_BATCH = 2  # windows differ in length: larger batches are padding and memory, and on a CPU no faster
_LONG = 300.0  # seconds of a file from which on progress is shown


class Encoder(Protocol):
    """What is asked of a model: `clasp_lib.CLASP` has it, and `WithTranscript`."""

    @property
    def speech_encoder(self) -> Any:
        """Its `sampling_rate` is the one that recordings are cut at."""
        ...

    def encode_speech(
        self,
        items: Sequence[AudioItem],
        sampling_rate: int = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
    ) -> np.ndarray:
        """As `clasp_lib.CLASP.encode_speech`."""
        ...

    def encode_text(
        self, texts: Sequence[str], batch_size: int = ..., show_progress_bar: bool | None = ...
    ) -> np.ndarray:
        """As `clasp_lib.CLASP.encode_text`."""
        ...


class Moment(NamedTuple):
    """A stretch of a recording, in seconds, and its cosine with the query (less what its length costs, if asked)."""

    start_s: float
    end_s: float
    score: float


class EncodedWindow(NamedTuple):
    """A stretch of a recording, in seconds, and its unit vector, float32 `(dimension,)`."""

    start_s: float
    end_s: float
    vector: np.ndarray


@dataclass(frozen=True, eq=False)
class EncodedRecording:
    """The windows of a recording, encoded: each further query costs one product.

    Attributes:
        start_s, end_s: of each window, in seconds, float64 (n,).
        vectors: float32 (n, dimension), of length 1.
        duration_s: of the recording.
        model: what encoded it, and encodes queries.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    vectors: np.ndarray
    duration_s: float
    model: Encoder = field(repr=False)

    def __len__(self) -> int:
        return len(self.vectors)

    def scores(self, query: str | AudioItem) -> np.ndarray:
        """Cosine of the query with each window, float32 (n,).

        Args:
            query: a text; or speech: a `Path`, an array at 16 kHz, or a mapping as `encode_speech` takes it.
        """
        return self.vectors @ _query_vector(self.model, query)

    def locate(self, query: str | AudioItem, k: int = 3, *, length_s: float | None = None) -> list[Moment]:
        """The `k` moments that are nearest to the query, best first; see `locate`."""
        _check(k, length_s)
        return _moments(self, self.scores(query), k, length_s)


def locate(
    model: Encoder,
    recording: Recording,
    query: str | AudioItem,
    k: int = 3,
    *,
    sampling_rate: int = SAMPLING_RATE,
    cutting: Cutting | None = None,
    batch_size: int = 16,
    length_s: float | None = None,
) -> list[Moment]:
    """The `k` stretches of a recording of any length that are nearest to a query, best first.

    The recording is cut at silences as it comes in. All runs of consecutive pieces of speech that are short enough are
    windows: a sentence has pauses, and nobody knows which of them are its ends. The best window stands for its moment;
    what overlaps it by more than half of the shorter one is left out, so that there may be fewer than `k` moments.

    Args:
        recording: a path, a 1-D array, `{"array", "sampling_rate"}`, `{"bytes", "path"}`, or an iterable of 1-D arrays,
            such as chunks from a microphone. The same samples give the same moments, however they come.
        query: a text, or speech: a `Path`, an array at 16 kHz, or one of the two mappings.
        sampling_rate: of a bare array and of chunks, in Hz.
        cutting: how the recording is cut into windows; see `Cutting`.
        length_s: about how long the moment is, where that is known: for a sentence that is asked for word by word,
            `speaking_time` of it. From each cosine, `LENGTH_WEIGHT` times the squared logarithm of actual over expected
            length is subtracted: 0.07 for a window twice or half as long. None, as for a question or a topic: every
            length is as good.

    Raises:
        AudioError: the recording cannot be read, or nothing in it can be heard.
        ClaspError: `k` or `length_s` makes no sense, or the query is empty.
    """
    _check(k, length_s)
    wanted = _query_vector(model, query)  # before the recording is read: a bad query is found at once
    encoded = encode_recording(
        model, recording, sampling_rate=sampling_rate, cutting=cutting, batch_size=batch_size, show_progress_bar=False
    )
    return _moments(encoded, encoded.vectors @ wanted, k, length_s)


def speaking_time(text: str) -> float:
    """About how long it takes to say a text, in seconds: 15.3 letters a second, as in the validation split of Pocket
    Brown, where it is off by 15%.

    For languages that are written in letters; one that counts syllables or words in signs is spoken more slowly.
    """
    return sum(map(str.isalnum, text)) / _LETTERS_PER_SECOND


def encode_recording(
    model: Encoder,
    recording: Recording,
    *,
    sampling_rate: int = SAMPLING_RATE,
    cutting: Cutting | None = None,
    batch_size: int = 16,
    show_progress_bar: bool | None = None,
) -> EncodedRecording:
    """Cut a recording into windows and encode each once, in memory that does not grow with its length.

    What is kept of an hour is about 2 500 vectors.

    Args:
        show_progress_bar: None shows one for a file of more than five minutes. The rest as in `locate`.

    Raises:
        AudioError: the recording cannot be read, or nothing in it can be heard.
    """
    seconds = duration(recording) if isinstance(recording, str | Path) else None
    show = (seconds or 0) > _LONG if show_progress_bar is None else show_progress_bar
    windows: list[EncodedWindow] = []
    with tqdm(total=seconds and round(seconds), desc="recording", unit="s", disable=not show) as bar:
        heard = _Counted(_chunks(model, recording, sampling_rate), model.speech_encoder.sampling_rate)
        for window in _encoded(model, heard, cutting or Cutting(), batch_size):
            windows.append(window)
            bar.update(int(heard.seconds) - bar.n)
    if not heard.seconds:
        raise AudioError(f"{_named(recording)}: holds no samples.")
    if not windows:
        raise AudioError(f"{_named(recording)}: is silent throughout, or too short: there is nothing to find.")
    return EncodedRecording(
        np.array([window.start_s for window in windows]),
        np.array([window.end_s for window in windows]),
        np.stack([window.vector for window in windows]),
        heard.seconds,
        model,
    )


def stream_windows(
    model: Encoder,
    chunks: Recording,
    sampling_rate: int = SAMPLING_RATE,
    cutting: Cutting | None = None,
    batch_size: int = 16,
) -> Iterator[EncodedWindow]:
    """Windows of live sound, each as soon as it is known, in the order of their ends.

    A window is known 10.5 seconds after its end at the latest: the threshold between speech and silence is set for
    blocks of ten seconds (`cutting.BLOCK_S`), and half a second of silence (`windows.PAUSE_S`; `silence_s` if that is
    longer) ends any window. Where somebody speaks on without a pause, that shows after `longest_s`, and the first
    windows of `window_s` are known only then: 5 seconds later.

    Raises:
        AudioError: a chunk is no 1-D array, or holds NaN or infinite samples; the message gives its number.
    """
    return _encoded(model, _chunks(model, chunks, sampling_rate), cutting or Cutting(), batch_size)


def best_moments(start_s: np.ndarray, end_s: np.ndarray, scores: np.ndarray, k: int) -> list[Moment]:
    """The `k` windows (n,) of the highest scores, none of which overlaps a better one by more than `OVERLAP`.

    Of equal scores, the earlier in the list wins.
    """
    found: list[Moment] = []
    left = np.ones(len(scores), bool)
    for i in np.argsort(-scores, kind="stable"):
        if not left[i]:
            continue
        found.append(Moment(float(start_s[i]), float(end_s[i]), float(scores[i])))
        if len(found) == k:
            break
        shared = np.minimum(end_s, end_s[i]) - np.maximum(start_s, start_s[i])  # (n,)
        left &= shared <= OVERLAP * np.minimum(end_s - start_s, end_s[i] - start_s[i])
    return found


class _Counted:
    """Chunks, and how many seconds of them have come."""

    def __init__(self, chunks: Iterator[np.ndarray], rate: int) -> None:
        self._chunks, self._rate, self._samples = chunks, rate, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for chunk in self._chunks:
            self._samples += len(chunk)
            yield chunk

    @property
    def seconds(self) -> float:
        return self._samples / self._rate


def _chunks(model: Encoder, recording: Recording, sampling_rate: int) -> Iterator[np.ndarray]:
    """The recording as one stream at the rate of the speech encoder."""
    rate = model.speech_encoder.sampling_rate
    if isinstance(recording, str | Path | Mapping | np.ndarray):
        return stream_audio(recording, BLOCK_S, rate, source_rate=sampling_rate)
    if isinstance(recording, Iterable):
        return stream_chunks(recording, sampling_rate, rate)
    raise AudioError(
        f"{describe(recording)}: cannot be read as a recording. Give a path, a 1-D array, "
        "{'array', 'sampling_rate'}, {'bytes', 'path'}, or an iterable of 1-D arrays."
    )


def _encoded(
    model: Encoder, chunks: Iterable[np.ndarray], cutting: Cutting, batch_size: int
) -> Iterator[EncodedWindow]:
    rate = model.speech_encoder.sampling_rate
    if getattr(getattr(model.speech_encoder, "device", None), "type", "cpu") == "cpu":
        batch_size = min(batch_size, _CPU_BATCH)
    for windows in cut(chunks, rate, cutting):
        if windows:
            vectors = model.encode_speech([w.samples for w in windows], rate, batch_size, show_progress_bar=False)
            for window, vector in zip(windows, vectors, strict=True):
                yield EncodedWindow(window.start / rate, window.end / rate, vector)


def _query_vector(model: Encoder, query: str | AudioItem) -> np.ndarray:
    """Unit vector `(dimension,)` of a text or of speech."""
    if isinstance(query, Path | np.ndarray | Mapping):
        return model.encode_speech([query], SAMPLING_RATE, show_progress_bar=False)[0]
    return model.encode_text([query])[0]


def _named(recording: Recording) -> str:
    known = isinstance(recording, str | Path | Mapping | np.ndarray)
    return describe(recording) if known else "the recording"


def length_cost(lengths: np.ndarray, expected_s: float) -> np.ndarray:
    """What is subtracted from the cosines of windows so long, `lengths` (n,) in seconds: (n,)."""
    return LENGTH_WEIGHT * np.log(lengths / expected_s) ** 2


def _moments(encoded: EncodedRecording, scores: np.ndarray, k: int, length_s: float | None) -> list[Moment]:
    if length_s is not None:
        scores = scores - length_cost(encoded.end_s - encoded.start_s, length_s)
    return best_moments(encoded.start_s, encoded.end_s, scores, k)


def _check(k: int, length_s: float | None) -> None:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ClaspError(f"k is {k!r}; give a whole number of at least 1.")
    if length_s is not None and (not isinstance(length_s, int | float) or not 0 < length_s < float("inf")):
        raise ClaspError(f"length_s is {length_s!r}; give a number of seconds above zero, or None.")
