"""Is the moment found? The record behind the chapter on long recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from clasp_lib.audio import SAMPLING_RATE, load_audio
from clasp_lib.localization import Cutting, best_moments, length_cost, speaking_time
from clasp_lib.localization.transcript import add_transcripts
from clasp_lib.localization.windows import cut
from clasp_lib.model import CLASP
from clasp_lib.moments import (
    FOUND,
    Joined,
    Judged,
    Segment,
    chance,
    join_all,
    judge,
    keyword_scores,
    read_segments,
    temporal_iou,
)
from clasp_lib.pretraining.measure import pocket_brown_test
from clasp_lib.profiles import Profile
from clasp_lib.records import six_digits
from clasp_lib.significance import bootstrap_groups, compare_family
from clasp_lib.text_normalisation import normalise
from clasp_lib.transcription import NOTHING_HEARD, Transcriber

MODELS = ("pocket-search-linear", "pocket-linear", "pocket-concatenation")
"""The first is the one that is meant for search; the encoders of the others never saw the space of sentences."""

MINUTES = (1, 4, 15)
"""About how long the joined recordings are."""

WEIGHT = 0.3  # of the transcript beside CLASP, chosen on the validation split
CHANCE, KEYWORDS, TRANSCRIPT, BOTH = "chance", "keywords", "transcript", "CLASP + transcript"
KNOWN, LENGTH = ", cut where clips end", ", expected length"
FIXED, MIXED = "CLASP, fixed windows", "CLASP, fixed windows too"

RECORDING = 0
"""Of the joined recordings of one minute, the one whose moments are kept, to be found again."""

_BATCH = 16
_MEASURES = Judged._fields


class Heard(NamedTuple):
    """The windows of a recording, and what each system makes of them."""

    start_s: np.ndarray
    end_s: np.ndarray
    vectors: dict[str, np.ndarray]
    transcripts: list[str]


def measure(profile: Profile, recordings: Mapping[str, Path], seed: int = 0) -> dict[str, Any]:
    """Recordings joined of the test split, of all lengths; and those of people in `recordings["long_recordings"]`."""
    ear = Ear([CLASP.from_pretrained(name, device="cpu") for name in MODELS], Transcriber("pocket-ctc", device="cpu"))
    test = pocket_brown_test(profile)
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    windows: list[dict[str, Any]] = []
    kept: list[list[float]] = []
    for minutes in MINUTES:
        joined = join_all(test.waves, test.texts, minutes, seed)
        of = {"recordings": "joined", "minutes": minutes}
        heard = [ear.hear(one.samples) for one in joined]
        systems = all_systems(ear, joined, heard, "en")
        if minutes == 4:
            systems |= fixed_systems(ear, joined, heard)
        rows += result_rows(of, systems, seed)
        comparisons += comparison_rows(of, systems, seed)
        windows.append(of | about_windows(joined, heard))
        if minutes == MINUTES[0]:
            kept = first_moments(ear, joined[RECORDING], heard[RECORDING])
    for name, one, language in human_recordings(recordings):
        heard = [ear.hear(one.samples)]
        systems = all_systems(ear, [one], heard, language) | fixed_systems(ear, [one], heard)
        of = {"recordings": name, "language": language}
        rows += result_rows(of, systems, seed)
        comparisons += comparison_rows(of, systems, seed)
        windows.append(of | about_windows([one], heard))
    return {
        "models": list(MODELS),
        "weight": WEIGHT,
        "clips": len(test.waves),
        "rows": rows,
        "comparisons": comparisons,
        "windows": windows,
        "slice": {"recording": RECORDING, "minutes": MINUTES[0], "moments": kept},
    }


class Ear:
    """All models and the recogniser; encoders that several of them have in common hear each window once."""

    def __init__(self, models: Sequence[CLASP], recogniser: Transcriber) -> None:
        self.models, self.recogniser = list(models), recogniser

    def hear(self, samples: np.ndarray, cutting: Cutting | None = None) -> Heard:
        """A recording `(samples,)` at 16 kHz, cut and encoded."""
        starts, ends, vectors, transcripts = [], [], [], []
        for block in cut([samples], SAMPLING_RATE, cutting or Cutting()):
            if block:
                starts += [window.start / SAMPLING_RATE for window in block]
                ends += [window.end / SAMPLING_RATE for window in block]
                found, texts = self.encode([window.samples for window in block])
                vectors.append(found)
                transcripts += texts
        joined = {name: np.concatenate([found[name] for found in vectors]) for name in MODELS}
        return Heard(np.array(starts), np.array(ends), joined, transcripts)

    @torch.inference_mode()
    def encode(self, waves: list[np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
        """Unit vectors (n, d) of each model, and transcripts."""
        seen = torch.from_numpy(self.models[0].spectrogram_encoder.encode(waves, _BATCH))
        states: dict[str, list[np.ndarray]] = {}
        vectors = {}
        for name, model in zip(MODELS, self.models, strict=True):
            encoder = model.speech_encoder
            if encoder.name not in states:
                states[encoder.name] = encoder.frames(waves, _BATCH)
            speech = torch.from_numpy(np.stack([frames.mean(0) for frames in states[encoder.name]]))  # (n, width)
            vectors[name] = functional.normalize(model.fusion(speech, seen).float(), dim=-1).numpy()
        return vectors, self.recogniser.read(states[self.recogniser.name])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (n, d) of texts, which are the same for all models."""
        return self.models[0].encode_text([text or NOTHING_HEARD for text in texts], show_progress_bar=False)


def human_recordings(folders: Mapping[str, Path]) -> list[tuple[str, Joined, str]]:
    """A name for each recording of people, the recording, and its language, which its file's name ends with."""
    if "long_recordings" not in folders:
        return []
    folder, found, counts = folders["long_recordings"], [], dict[str, int]()
    for file, segments in read_segments(folder).items():
        language = Path(file).stem.split("_")[-2]
        counts[language] = counts.get(language, 0) + 1
        samples = load_audio(folder / file, SAMPLING_RATE, max_seconds=None)
        found.append((f"people, {language} {counts[language]}", Joined(samples, segments), language))
    return found


def all_systems(ear: Ear, joined: Sequence[Joined], heard: Sequence[Heard], language: str) -> dict[str, list[Judged]]:
    """By system, how each segment of all recordings was found."""
    systems: dict[str, list[Judged]] = {}
    for one, windows in zip(joined, heard, strict=True):
        texts = [segment.text for segment in one.segments]
        queries = ear.texts([normalise(text, language) if language == "fa" else text for text in texts])
        read = ear.texts(windows.transcripts)
        known, known_read = known_cut(ear, one)
        at = np.array([segment[:2] for segment in one.segments])
        for name in MODELS:
            _add(systems, name, judged(windows, queries @ windows.vectors[name].T, one.segments))
        both = add_transcripts(windows.vectors[MODELS[0]], read, WEIGHT)
        _add(systems, BOTH, judged(windows, queries @ both.T, one.segments))
        _add(systems, TRANSCRIPT, judged(windows, queries @ read.T, one.segments))
        _add(systems, KEYWORDS, judged(windows, keyword_scores(texts, windows.transcripts, language), one.segments))
        lengths = windows.end_s - windows.start_s
        cost = np.stack([length_cost(lengths, speaking_time(text)) for text in texts])  # (segments, windows)
        heard_scores = queries @ windows.vectors[MODELS[0]].T - cost
        _add(systems, MODELS[0] + LENGTH, judged(windows, heard_scores, one.segments))
        _add(systems, BOTH + LENGTH, judged(windows, queries @ both.T - cost, one.segments))
        _add(systems, CHANCE, [chance(segment, lengths, one.duration_s) for segment in one.segments])
        told = Heard(at[:, 0], at[:, 1], {}, [])
        _add(systems, MODELS[0] + KNOWN, judged(told, queries @ known.T, one.segments))
        _add(systems, BOTH + KNOWN, judged(told, queries @ add_transcripts(known, known_read, WEIGHT).T, one.segments))
    return systems


def fixed_systems(ear: Ear, joined: Sequence[Joined], heard: Sequence[Heard]) -> dict[str, list[Judged]]:
    """CLASP on windows of five seconds every second, and on these and those between silences."""
    systems: dict[str, list[Judged]] = {}
    for one, windows in zip(joined, heard, strict=True):
        fixed = ear.hear(one.samples, Cutting(silence_s=None))
        queries = ear.texts([segment.text for segment in one.segments])
        name = MODELS[0]
        _add(systems, FIXED, judged(fixed, queries @ fixed.vectors[name].T, one.segments))
        mixed = Heard(
            np.concatenate([windows.start_s, fixed.start_s]), np.concatenate([windows.end_s, fixed.end_s]), {}, []
        )
        vectors = np.concatenate([windows.vectors[name], fixed.vectors[name]])
        _add(systems, MIXED, judged(mixed, queries @ vectors.T, one.segments))
    return systems


def known_cut(ear: Ear, one: Joined) -> tuple[np.ndarray, np.ndarray]:
    """What the first model and the text encoder make of the segments themselves, whose limits nobody knows."""
    waves = [one.samples[round(a * SAMPLING_RATE) : round(b * SAMPLING_RATE)] for a, b, _ in one.segments]
    vectors, transcripts = ear.encode(waves)
    return vectors[MODELS[0]], ear.texts(transcripts)


def judged(windows: Heard, scores: np.ndarray, segments: Sequence[Segment]) -> list[Judged]:
    """Scores (segments, windows): how each segment is found by its own sentence."""
    return [
        judge(best_moments(windows.start_s, windows.end_s, row, 5), segment)
        for row, segment in zip(scores, segments, strict=True)
    ]


def result_rows(of: Mapping[str, Any], systems: Mapping[str, list[Judged]], seed: int) -> list[dict[str, Any]]:
    """Each system's measures with 95% intervals over the sentences."""
    rows = []
    for name, found in systems.items():
        values = {key: np.array([getattr(one, key) for one in found]) for key in _MEASURES}
        intervals = bootstrap_groups(values, seed=seed)
        measures = {
            key: {end: six_digits(v) for end, v in interval._asdict().items()} for key, interval in intervals.items()
        }
        rows.append({**of, "system": name, "n": len(found), **measures})
    return rows


def comparison_rows(of: Mapping[str, Any], systems: Mapping[str, list[Judged]], seed: int) -> list[dict[str, Any]]:
    """Recall at 1 of each system less that of the first model, sentence by sentence."""
    values = {name: np.array([one.recall_at_1 for one in found]) for name, found in systems.items() if name != CHANCE}
    compared = compare_family(values, measure="recall_at_1", against=MODELS[0], seed=seed)
    return [
        {**of, "first": first, "second": second, "n": c.n, "p_holm": six_digits(c.p_holm)}
        | {end: six_digits(value) for end, value in c.difference._asdict().items()}
        for (first, second), c in compared.items()
    ]


def about_windows(joined: Sequence[Joined], heard: Sequence[Heard]) -> dict[str, Any]:
    """How many windows there are, how much sound in them, and for what share of the segments one of them would do."""
    seconds = sum(one.duration_s for one in joined)
    reachable = [
        temporal_iou(windows.start_s, windows.end_s, segment.start_s, segment.end_s).max() >= FOUND
        for one, windows in zip(joined, heard, strict=True)
        for segment in one.segments
    ]
    return {
        "recordings_made": len(joined),
        "seconds": six_digits(seconds),
        "windows_per_minute": six_digits(60 * sum(len(windows.start_s) for windows in heard) / seconds),
        "seconds_encoded_per_second": six_digits(sum((w.end_s - w.start_s).sum() for w in heard) / seconds),
        "reachable": six_digits(float(np.mean(reachable))),
    }


def first_moments(ear: Ear, one: Joined, windows: Heard) -> list[list[float]]:
    """Start, end and score of each query's best moment by the first model."""
    scores = ear.texts([segment.text for segment in one.segments]) @ windows.vectors[MODELS[0]].T
    best = [best_moments(windows.start_s, windows.end_s, row, 1)[0] for row in scores]
    return [[six_digits(value) for value in moment] for moment in best]


def _add(systems: dict[str, list[Judged]], name: str, found: list[Judged]) -> None:
    systems.setdefault(name, []).extend(found)
