"""The recordings that visitors bring: copied to a plain file, encoded once, and deleted when they leave."""

from __future__ import annotations

import secrets
import shutil
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from clasp_lib.audio import SAMPLING_RATE, stream_audio
from clasp_lib.demo.limits import Limits, Refused
from clasp_lib.errors import AudioError
from clasp_lib.localization import EncodedRecording, Moment, encode_recording

if TYPE_CHECKING:
    from clasp_lib.model import CLASP

_BLOCK_SECONDS = 30.0
_BIN = SAMPLING_RATE // 20  # samples behind one peak


class Recording:
    """A visitor's recording.

    Attributes:
        name: what the visitor calls it. file: a WAV at 16 kHz, which every browser plays and seeks in exactly.
        seconds: its length. peaks: (n,) the loudest sample of each twentieth of a second. windows: their vectors.
        moments: the answer to the visitor's last query.
    """

    def __init__(self, name: str, file: Path, seconds: float, peaks: np.ndarray, windows: EncodedRecording) -> None:
        self.name, self.file, self.seconds, self.peaks, self.windows = name, file, seconds, peaks, windows
        self.moments: list[Moment] = []
        self.delete = weakref.finalize(self, shutil.rmtree, file.parent, ignore_errors=True)


def take_recording(model: CLASP, upload: Path, name: str, folder: Path, limits: Limits) -> Recording:
    """Copy an upload into a folder of its own below `folder`, and encode it; memory does not grow with its length.

    Raises:
        Refused: it is larger or longer than the limits allow, whatever its header says.
        AudioError: it cannot be read, or is silent.
    """
    limits.check_size(upload.stat().st_size)
    own = folder / secrets.token_hex(16)  # the only key to it: nobody guesses 128 bits
    own.mkdir(mode=0o700, parents=True)
    try:
        file = own / "recording.wav"
        seconds, peaks = _copy(upload, file, limits)
        try:
            windows = encode_recording(model, file, show_progress_bar=False)
        except AudioError as error:  # what nobody knows is the copy: its name is the key to it
            raise AudioError(str(error).replace(str(file), str(upload))) from error
        return Recording(name, file, seconds, peaks, windows)
    except BaseException:
        shutil.rmtree(own, ignore_errors=True)
        raise


def _copy(source: Path, target: Path, limits: Limits) -> tuple[float, np.ndarray]:
    """Seconds, and the loudest sample of each bin."""
    import soundfile

    most = round(limits.recording_minutes * 60 * SAMPLING_RATE)
    samples, peaks = 0, []
    with soundfile.SoundFile(target, "w", SAMPLING_RATE, 1, "PCM_16", format="WAV") as copy:
        for block in stream_audio(source, _BLOCK_SECONDS, SAMPLING_RATE):
            samples += len(block)
            if samples > most:
                raise Refused("too_long", most=limits.recording_minutes)
            copy.write(block)
            peaks.append(_loudest(block))
    if not peaks:
        raise AudioError(f"{source}: holds no samples.")
    return samples / SAMPLING_RATE, np.concatenate(peaks)


def _loudest(block: np.ndarray) -> np.ndarray:
    whole = np.pad(np.abs(block), (0, -len(block) % _BIN))  # (bins * _BIN,)
    return whole.reshape(-1, _BIN).max(1)


class Visitors:
    """Each visitor's recording, by the session's key; nobody gets another's.

    Gradio's own session state outlives a closed page by an hour; a voice should not.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock, self._lock = limits, clock, Lock()
        self._kept: OrderedDict[str, tuple[float, Recording]] = OrderedDict()  # used last at the end

    def put(self, visitor: str, recording: Recording) -> None:
        """Keep a recording in place of the visitor's last one."""
        self.forget(visitor)
        with self._lock:
            self._kept[visitor] = (self._clock(), recording)
        self._clear()

    def get(self, visitor: str) -> Recording | None:
        """The visitor's recording, if there is one still."""
        self._clear()
        with self._lock:
            if visitor not in self._kept:
                return None
            recording = self._kept.pop(visitor)[1]
            self._kept[visitor] = (self._clock(), recording)
            return recording

    def forget(self, visitor: str) -> None:
        """Delete the visitor's recording."""
        with self._lock:
            _, recording = self._kept.pop(visitor, (0.0, None))
        if recording is not None:
            recording.delete()

    def __len__(self) -> int:
        return len(self._kept)

    def _clear(self) -> None:
        """Delete what is too old, and what is too many."""
        with self._lock:
            before = self._clock() - 60 * self._limits.keep_minutes
            old = [visitor for visitor, (used, _) in self._kept.items() if used < before]
            many = list(self._kept)[: max(0, len(self._kept) - self._limits.recordings)]
        for visitor in {*old, *many}:
            self.forget(visitor)
