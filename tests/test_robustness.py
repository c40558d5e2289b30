"""Curves of what is left when speech is disturbed, measured on systems whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Clip

from clasp_lib import CLASP, robustness
from clasp_lib.errors import AudioError, CheckpointError, ClaspError
from clasp_lib.robustness import CLEAN, Heard, compare_rows, curve_rows, hear, robustness_curves, sentence_scores
from clasp_lib.significance import bootstrap_groups, sign_flip_test

RATE = 16_000
NAMES = [f"sentence {i}" for i in range(12)]


def chord(seed: int) -> np.ndarray:
    """Half a second of five tones."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 2) / RATE
    return (0.1 * sum(np.sin(2 * np.pi * f * time) for f in rng.uniform(200, 6000, 5))).astype(np.float32)


def ear(waves: list[np.ndarray], bands: int = 64) -> np.ndarray:
    """Energy in bands: (clips, bands) unit vectors."""
    power = [np.abs(np.fft.rfft(wave, RATE)[: bands * 120]) ** 2 for wave in waves]
    found = np.log1p(np.stack([p.reshape(bands, -1).sum(1) for p in power]))
    found -= found.mean(1, keepdims=True)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def dull(waves: list[np.ndarray]) -> np.ndarray:
    """Hears nothing above 1 kHz, in the same space."""
    narrow = ear(waves)
    narrow[:, 9:] = 0
    return narrow


CLIPS = [chord(i) for i in range(12)]
TEXTS = ear(CLIPS)
SYSTEMS = {"ear": ear, "dull": dull}
NOISE = {"white noise": (20.0, -40.0)}
QUICK = {"resamples": 200, "show_progress_bar": False}


class Counted:
    """A system that says how often it was asked, and fails when it is told to."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls, self.fails_at, self.waves = 0, fails_at, []

    def __call__(self, waves: list[np.ndarray]) -> np.ndarray:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the power is gone")
        self.waves += waves
        return ear(waves)


def only(rows: list[dict], **wanted: object) -> dict:
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def test_the_curve_starts_at_the_clean_run_and_falls_with_the_noise() -> None:
    rows = robustness_curves(CLIPS, TEXTS, NAMES, SYSTEMS, NOISE, **QUICK)
    assert len(rows) == 2 * 3 * 2 * 2  # systems, cells, directions, measures
    for direction in ("speech_to_text", "text_to_speech"):
        here = {"system": "ear", "direction": direction, "measure": "mrr"}
        clean = only(rows, **here, disturbance=CLEAN)
        weak, strong = (only(rows, **here, disturbance="white noise", strength=s) for s in (20.0, -40.0))
        assert clean["value"] == 1 and clean["strength"] is None and clean["unit"] is None
        assert clean["difference"] is None and clean["p_value"] is None and clean["corrected"] is None
        assert strong["value"] < 0.7 <= weak["value"]
        assert strong["difference"] == pytest.approx(strong["value"] - 1)
        assert strong["difference_low"] < strong["difference"] < strong["difference_high"] < 0
        assert strong["p_value"] < 0.05 and strong["corrected"] >= strong["p_value"]
        assert (strong["n"], strong["clips"], strong["seed"], strong["resamples"]) == (12, 12, 0, 200)
        assert strong["unit"] == "dB of speech over it" and strong["real_strength"] == -40


def test_intervals_and_p_values_are_those_of_significance() -> None:
    heard = hear(CLIPS, TEXTS, NAMES, SYSTEMS, NOISE, show_progress_bar=False)
    row = only(
        curve_rows(heard, ["mrr"], 500, seed=3), system="dull", strength=20.0, direction="speech_to_text", measure="mrr"
    )
    clean, noisy = (
        next(p.scores["mrr"] for p in heard if (p.system, p.strength, p.direction) == ("dull", s, "speech_to_text"))
        for s in (None, 20.0)
    )
    found = bootstrap_groups({"value": noisy, "difference": noisy - clean}, None, 500, 3)
    assert (row["value"], row["low"], row["high"]) == found["value"]
    assert (row["difference"], row["difference_low"], row["difference_high"]) == found["difference"]
    assert row["p_value"] == sign_flip_test(noisy - clean, 500, 3)


def test_several_recordings_of_a_sentence_count_as_one() -> None:
    texts = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 2]]
    ids = ["a", "a", "a", "b", "c"]
    speech = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2]]  # the third recording of "a" sounds like "b"
    found = sentence_scores(speech, texts, ids)
    assert found["speech_to_text"]["hits_at_1"] == pytest.approx([2 / 3, 1, 1])
    assert found["text_to_speech"]["hits_at_1"] == pytest.approx([1, 0.5, 1])  # "b" ties with the third of "a"
    asked = sentence_scores(speech, texts, ids, np.array([2, 4]))
    assert asked["speech_to_text"]["hits_at_1"] == pytest.approx([0, 1])
    assert asked["text_to_speech"]["hits_at_1"] == pytest.approx([1, 1])


def test_all_systems_hear_the_same_waves_whatever_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Counted(), Counted()
    one = robustness_curves(CLIPS, TEXTS, NAMES, {"first": first, "second": second}, NOISE, **QUICK)
    assert len(first.waves) == 36
    assert all((a == b).all() for a, b in zip(first.waves, second.waves, strict=True))
    monkeypatch.setattr(robustness, "_CHUNK", 5)
    small = Counted()
    other = robustness_curves(CLIPS, TEXTS, NAMES, {"first": small, "second": ear}, NOISE, **QUICK)
    assert small.calls == 9
    assert all((a == b).all() for a, b in zip(first.waves, small.waves, strict=True))
    assert one == other


def test_another_seed_makes_other_noise() -> None:
    first, second = Counted(), Counted()
    hear(CLIPS, TEXTS, NAMES, {"a": first}, {"white noise": [0]}, 0, show_progress_bar=False)
    hear(CLIPS, TEXTS, NAMES, {"a": second}, {"white noise": [0]}, 1, show_progress_bar=False)
    same = [(a == b).all() for a, b in zip(first.waves, second.waves, strict=True)]
    assert same == [True] * 12 + [False] * 12


def test_no_clip_babbles_over_its_own_sentence() -> None:
    time = np.arange(RATE) / RATE
    clips = [np.sin(2 * np.pi * f * time).astype(np.float32) for f in (500, 700, 2000, 2300)]
    system = Counted()
    hear(clips, ear(clips), ["a", "a", "b", "b"], {"a": system}, {"babble": [0]}, show_progress_bar=False)
    for number, (heard, clip) in enumerate(zip(system.waves[4:], clips, strict=True)):
        added = np.abs(np.fft.rfft((heard - clip) * np.hanning(RATE)))  # a bin is 1 Hz
        loud = [f for f in (500, 700, 2000, 2300) if added[f] > 0.1 * added.max()]
        assert loud == ([2000, 2300] if number < 2 else [500, 700])


def test_the_bit_rate_of_a_row_is_the_one_that_the_codec_took() -> None:
    kinds = {"Opus": [16.0], "MP3": [24], "speed": [1.1]}
    heard = hear(CLIPS, TEXTS, NAMES, {"ear": ear}, kinds, show_progress_bar=False)
    real = {part.disturbance: part.real_strength for part in heard}
    assert real["Opus"] != 16 and 6 < real["Opus"] < 24
    assert real["MP3"] == pytest.approx(24) and real["speed"] == pytest.approx(1.1) and real[CLEAN] is None


def test_what_is_stored_is_not_measured_again(tmp_path: Path) -> None:
    system = Counted()
    one = robustness_curves(CLIPS, TEXTS, NAMES, {"a": system}, NOISE, folder=tmp_path, **QUICK)
    assert system.calls == 3 and len(list(tmp_path.iterdir())) == 3
    other = robustness_curves(CLIPS, TEXTS, NAMES, {"a": system}, NOISE, folder=tmp_path, **QUICK)
    assert system.calls == 3 and one == other
    more = {"white noise": (20.0, -40.0, 0.0), "speed": [1.2]}
    robustness_curves(CLIPS, TEXTS, NAMES, {"a": system}, more, folder=tmp_path, **QUICK)
    assert system.calls == 5


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    whole = hear(CLIPS, TEXTS, NAMES, {"a": ear, "b": dull}, NOISE, show_progress_bar=False)
    with pytest.raises(RuntimeError, match="power"):
        hear(
            CLIPS, TEXTS, NAMES, {"a": Counted(fails_at=3), "b": dull}, NOISE, folder=tmp_path, show_progress_bar=False
        )
    assert len(list(tmp_path.iterdir())) == 4  # two systems, two cells
    system = Counted()
    rest = hear(CLIPS, TEXTS, NAMES, {"a": system, "b": dull}, NOISE, folder=tmp_path, show_progress_bar=False)
    assert system.calls == 1
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"] * 6
    for a, b in zip(whole, rest, strict=True):
        assert (a.system, a.disturbance, a.strength, a.direction) == (b.system, b.disturbance, b.strength, b.direction)
        assert all((a.scores[name] == b.scores[name]).all() for name in a.scores) and set(a.scores) == set(b.scores)


@pytest.mark.parametrize("changed", ["version", "seed", "clips", "texts", "ids"])
def test_scores_of_something_else_are_left_alone(changed: str, tmp_path: Path) -> None:
    clips, texts, ids, seed, version = list(CLIPS), TEXTS, list(NAMES), 0, "one"

    def measure() -> int:
        system = Counted()
        settings = {"versions": {"a": version}, "show_progress_bar": False}
        hear(clips, texts, ids, {"a": system}, {"white noise": [0]}, seed, tmp_path, **settings)
        return system.calls

    assert (measure(), measure()) == (2, 0)
    if changed == "version":
        version = "two"
    elif changed == "seed":
        seed = 1
    elif changed == "clips":
        clips[3] = clips[3] * np.float32(1.5)
    elif changed == "texts":
        texts = TEXTS[::-1]
    else:
        ids[1] = "another"
    assert measure() == 2
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    hear(CLIPS, TEXTS, NAMES, {"a": ear}, NOISE, folder=tmp_path, show_progress_bar=False)
    file = next(tmp_path.glob("a-white-noise-20.0-*"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"a-white-noise-20\.0"):
        hear(CLIPS, TEXTS, NAMES, {"a": ear}, NOISE, folder=tmp_path, show_progress_bar=False)


def scores(system: str, strength: float | None, *values: float) -> Heard:
    name = CLEAN if strength is None else "speed"
    return Heard(system, name, strength, strength, "speech_to_text", 9, {"mrr": np.array(values)})


def test_two_systems_are_compared_sentence_by_sentence() -> None:
    heard = [
        *(scores("a", None, 1, 1, 1, 0), scores("a", 2.0, 1, 0, 0, 0)),
        *(scores("b", None, 1, 0, 1, 1), scores("b", 2.0, 0, 0, 1, 1)),
    ]
    clean, fast = compare_rows(heard, "a", "b", ["mrr"], 100)
    assert (clean["first"], clean["second"], clean["value"]) == ("a", "b", 0)
    assert fast["value"] == -1 / 4
    assert fast["difference"] == -1 / 4  # a lost a half, b a quarter
    assert fast["p_value"] == sign_flip_test(np.array([1, -1, -1, 0.0]))
    assert "system" not in fast and fast["clips"] == 9
    with pytest.raises(ClaspError, match="'c' was not measured"):
        compare_rows(heard, "a", "c")
    with pytest.raises(ClaspError, match="'c' was not measured"):
        compare_rows(heard, "c", "a")
    with pytest.raises(ClaspError, match=r"'b' was not measured with speed 2\.0"):
        compare_rows(heard[:3], "a", "b")


def test_p_values_are_corrected_for_all_rows_of_a_panel() -> None:
    many = [scores("a", None, *[1.0] * 10), *(scores("a", s, *[0.9] * 10) for s in (1.1, 1.2, 1.3))]
    rows = curve_rows(many, ["mrr"], 100)
    assert [row["p_value"] for row in rows] == [None, *[2 / 2**10] * 3]
    assert [row["corrected"] for row in rows] == [None, *[3 * 2 / 2**10] * 3]


def test_rows_need_the_clean_run_and_a_known_measure() -> None:
    with pytest.raises(ClaspError, match="clean run of system 'a' is missing"):
        curve_rows([scores("a", 1.1, 1, 0)], ["mrr"], 100)
    with pytest.raises(ClaspError, match=r"measure 'map' is not known\. Choose from mrr"):
        curve_rows([scores("a", None, 1, 0)], ["map"], 100)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": TEXTS[:5]}, r"12 clips, text vectors of shape \(5, 64\) and 12 ids"),
        ({"texts": TEXTS[:, 0]}, r"shape \(12,\)"),
        ({"ids": NAMES[:3]}, "3 ids"),
        ({"ids": ["a"] * 12}, "fewer than two sentences"),
        ({"systems": {}}, "none to measure"),
        ({"disturbances": {"wind": [1]}}, "'wind' is not known"),
        ({"disturbances": {"MP3": [24, 25]}}, "MP3: strength 25"),
        ({"versions": {"eye": "1"}}, "names 'eye'"),
        ({"systems": {"a": lambda waves: TEXTS[:, :3]}}, r"system 'a': gave vectors of shape \(12, 3\)"),
        ({"systems": {"a": lambda waves: TEXTS * np.nan}}, "not finite, for clean"),
    ],
)
def test_bad_input_is_named(changes: dict, said: str) -> None:
    given = {"clips": CLIPS, "texts": TEXTS, "ids": NAMES, "systems": {"a": Counted()}, "disturbances": NOISE}
    with pytest.raises(ClaspError, match=said):
        hear(**given | changes, show_progress_bar=False)
    assert given["systems"]["a"].calls == 0


def test_a_clip_that_cannot_be_disturbed_is_named() -> None:
    clips = [*CLIPS[:3], np.zeros(RATE, np.float32)]
    with pytest.raises(AudioError, match="clip 3, white noise 20: wave: is silent"):
        hear(clips, TEXTS[:4], NAMES[:4], {"a": lambda waves: TEXTS[: len(waves)]}, NOISE, show_progress_bar=False)


def test_a_model_is_a_system(clips: list[Clip], model: CLASP) -> None:
    waves, texts = [clip.samples for clip in clips], model.encode_text([clip.text for clip in clips])
    systems = {"CLASP": lambda heard: model.encode_speech(heard, show_progress_bar=False)}
    kinds = {"telephone": [1], "reverberation": [0.4], "silence": [0.5], "clipping": [0.1]}
    rows = robustness_curves(waves, texts, [clip.text for clip in clips], systems, kinds, **QUICK)
    assert len(rows) == 5 * 2 * 2
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 and row["n"] == 6 for row in rows)
