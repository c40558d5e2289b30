"""Broken settings: profiles, training, ablation.toml, cutting, and the limits of the demo. Each is refused by name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from clasp_lib import get_profile
from clasp_lib.ablation.specification import read_ablation
from clasp_lib.demo.limits import Limits
from clasp_lib.errors import CheckpointError
from clasp_lib.localization import Cutting
from clasp_lib.profiles import PROFILES
from clasp_lib.training import TrainingSettings
from hard.conftest import Ended

GROUP = "bad configs"
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("name", ["Pocket", "pocket ", "paper_tiny", "../pocket", "pocket\0", "x" * 1_000, 5])
def test_a_profile_that_is_not_known_is_refused(name: Any, monkeypatch: pytest.MonkeyPatch, ended: Ended) -> None:
    with ended.refused(GROUP, f"get_profile({str(name)[:12]!r})", "is not known. Set CLASP_PROFILE to one of: pocket"):
        get_profile(name)
    if isinstance(name, str) and "\0" not in name:
        monkeypatch.setenv("CLASP_PROFILE", name)
        with ended.refused(GROUP, f"CLASP_PROFILE={name[:12]!r}", "is not known. Set CLASP_PROFILE to one of: pocket"):
            get_profile()


def test_an_empty_variable_means_the_usual_profile(monkeypatch: pytest.MonkeyPatch, ended: Ended) -> None:
    monkeypatch.setenv("CLASP_PROFILE", "")
    assert get_profile().name == get_profile("").name == "pocket"
    ended(GROUP, "CLASP_PROFILE empty", "accepted")


# Training ----------------------------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Any, ...]] = {
    "epochs": (0, -1, NAN, 1.5, "3", None, True, INFINITY),
    "batch_size": (0, -8, NAN, 2.5, "256", None, True),
    "patience": (0, -1, NAN, 1.5, "3", None),
    "seed": (-1, 1.5, "0", None, NAN, 2**64),
    "learning_rate": (0, -1e-3, NAN, INFINITY, "0.1", None, True),
    "weight_decay": (-0.1, NAN, INFINITY, "0", None),
    "warm_up": (-0.1, 1.1, NAN, "0", None),
    "clip_norm": (0, -1, NAN, "1", None),
    "checkpoint_every": (-1, NAN, "60", None),
    "precision": ("float64", "", None, "Mixed", 16),
    "compiled": ("no", None, 2),
    "resident": ("yes", 2),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in SETTINGS.items() for value in values])
def test_a_setting_of_training_that_makes_no_sense_is_refused(name: str, value: Any, ended: Ended) -> None:
    said = re.compile(f"^{name} .*(give|Choose from)", re.DOTALL)
    with ended.refused(GROUP, f"TrainingSettings({name}={value!r})", said, value if value == value else "nan"):
        TrainingSettings(**{name: value})


def test_settings_at_their_ends_are_taken(ended: Ended) -> None:
    for settings in ({"epochs": 1}, {"warm_up": 0}, {"warm_up": 1}, {"weight_decay": 0}, {"seed": 2**63 - 1}):
        TrainingSettings(**settings)  # type: ignore[arg-type]
        ended(GROUP, f"TrainingSettings({settings})", "accepted")


# Ablations ---------------------------------------------------------------------------------------------------------

HEAD = 'profile = "pocket"\nseeds = 3\n'
GRID = '[[grid]]\nfusions = ["gating", "concatenation"]\n'
QUESTION = '[[questions]]\nname = "a"\nfirst = { fusion = "gating" }\nsecond = { fusion = "concatenation" }\n'

ABLATIONS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "'profile' is missing"),
    "no TOML": ("profile: pocket\n", "cannot be read as TOML"),
    "a table without its end": ("[[grid]\n", "cannot be read as TOML"),
    "a key twice": (HEAD + "seeds = 4\n" + GRID, "cannot be read as TOML"),
    "latin-1": ("# é".encode("latin-1"), "cannot be read as TOML"),
    "a mark of UTF-8": (b"\xef\xbb\xbf" + (HEAD + GRID).encode(), "cannot be read as TOML"),
    "NUL": (b"profile = \0", "cannot be read as TOML"),
    "a pickle": (b"\x80\x04\x95\x1e\0\0", "cannot be read as TOML"),
    "no seeds": ('profile = "pocket"\n' + GRID, "'seeds' is missing"),
    "no grid": (HEAD, "'grid' is missing"),
    "an empty grid": (HEAD + "grid = []\n", "grid"),
    "a grid of numbers": (HEAD + "grid = [1]\n", r"\[\[grid\]\] 1: is 1; expected a table"),
    "a profile that is not known": ('profile = "pockt"\nseeds = 3\n' + GRID, "profile 'pockt' is not known"),
    "a profile that is a number": ("profile = 5\nseeds = 3\n" + GRID, "profile is 5; expected str"),
    "one seed": ('profile = "pocket"\nseeds = 1\n' + GRID, "seeds is 1; without a second one"),
    "seeds below zero": ('profile = "pocket"\nseeds = -3\n' + GRID, "seeds is -3"),
    "seeds as text": ('profile = "pocket"\nseeds = "3"\n' + GRID, "seeds is '3'; expected int"),
    "seeds as truth": ('profile = "pocket"\nseeds = true\n' + GRID, "seeds is True; expected int"),
    "a key that is not known": (HEAD + "speed = 3\n" + GRID, "'speed' is not known. Choose from"),
    "a rate of zero": (HEAD + "learning_rates = [0.0]\n" + GRID, r"learning_rates is \[0.0\]; give numbers"),
    "a rate that is no number": (HEAD + "learning_rates = [nan]\n" + GRID, r"learning_rates is \[nan\]"),
    "a rate without end": (HEAD + "learning_rates = [inf]\n" + GRID, r"learning_rates is \[inf\]"),
    "a rate as text": (HEAD + 'learning_rates = ["1e-3"]\n' + GRID, "learning_rates is"),
    "no rates": (HEAD + "learning_rates = []\n" + GRID, r"learning_rates is \[\]"),
    "no tuning": (HEAD + "tuning_seeds = 0\n" + GRID, "tuning_seeds is 0; give 1 or more"),
    "a setting that is not known": (HEAD + GRID + "[settings]\nspeed = 3\n", r"\[settings\]: 'speed' is not known"),
    "a seed among the settings": (HEAD + GRID + "[settings]\nseed = 3\n", r"\[settings\]: 'seed' is not known"),
    "a setting of another kind": (HEAD + GRID + '[settings]\nepochs = "3"\n', "epochs is '3'; expected int"),
    "a setting out of range": (HEAD + GRID + "[settings]\nepochs = 0\n", r"\[settings\]: epochs is 0; give"),
    "a fusion that is not known": (HEAD + '[[grid]]\nfusions = ["average"]\n', "fusion 'average' is not known"),
    "a loss that is not known": (HEAD + '[[grid]]\nlosses = ["hinge"]\n', "loss 'hinge' is not known"),
    "a fusion that is a number": (HEAD + "[[grid]]\nfusions = [3]\n", "are lists of names"),
    "no fusions": (HEAD + "[[grid]]\nfusions = []\n", "are lists of names, none of them empty"),
    "fusions that are no list": (HEAD + '[[grid]]\nfusions = "gating"\n', "fusions is 'gating'; expected list"),
    "what does not go together": (
        HEAD + '[[grid]]\nfusions = ["attention+gating"]\nlosses = ["augmentation"]\n',
        "compares mean vectors, and 'attention.gating' takes frames",
    ),
    "a question about nothing": (HEAD + GRID + QUESTION.replace('"gating"', '"sum"'), "no grid trains"),
    "a question about itself": (
        HEAD + GRID + QUESTION.replace('"gating"', '"concatenation"'),
        "both sides are the same",
    ),
    "a question twice": (HEAD + GRID + QUESTION + QUESTION, "two questions have the same name"),
    "a question without a side": (HEAD + GRID + QUESTION.replace("second", "third"), "'third' is not known"),
    "a question of a number": (HEAD + GRID + "[[questions]]\nname = 3\n", "name is 3; expected str"),
    "a side that is a text": (HEAD + GRID + QUESTION.replace('{ fusion = "gating" }', '"gating"'), "expected dict"),
    "a thousand lists": (f"a = {'[' * 100_000}", "cannot be read as TOML"),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_that_makes_no_sense_is_refused(name: str, tmp_path: Path, ended: Ended) -> None:
    content, said = ABLATIONS[name]
    file = tmp_path / "ablation.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with ended.refused(GROUP, f"ablation.toml: {name}", "ablation.toml", re.compile(said)):
        read_ablation(file)


def test_an_ablation_that_is_not_there_is_refused(tmp_path: Path, ended: Ended) -> None:
    for name, path in (("missing", tmp_path / "none.toml"), ("a folder", tmp_path)):
        with ended.refused(GROUP, f"ablation.toml: {name}", path, "cannot be read as TOML"):
            read_ablation(path)
    (tmp_path / "ablation.toml").write_text(HEAD + GRID + QUESTION, "utf-8")
    assert len(read_ablation(tmp_path / "ablation.toml").systems) == 2  # what all others are variants of


# Cutting and limits ------------------------------------------------------------------------------------------------

CUTTINGS: list[dict[str, Any]] = [
    *(
        {name: value}
        for name in ("shortest_s", "longest_s", "window_s", "hop_s")
        for value in (NAN, INFINITY, None, "1")
    ),
    *({name: value} for name in ("shortest_s", "longest_s", "window_s", "hop_s") for value in (0, -1, 61, True)),
    *({"silence_s": value} for value in (NAN, INFINITY, "0.2", 0, 0.05, -1, 11, False)),
    {"shortest_s": 5, "longest_s": 4},
    {"hop_s": 6, "window_s": 5},
]


@pytest.mark.parametrize("change", CUTTINGS, ids=str)
def test_a_cutting_that_makes_no_sense_is_refused(change: dict[str, Any], ended: Ended) -> None:
    with ended.refused(GROUP, f"Cutting({change})", *change, re.compile("give|expected")):
        Cutting(**change)


LIMITS: list[dict[str, Any]] = [
    *({name: value} for name in ("upload_mb", "recording_minutes", "spoken_query_seconds") for value in (0, -1, NAN)),
    *({name: value} for name in ("upload_mb", "keep_minutes") for value in (INFINITY, None, "5", True)),
    *({name: value} for name in ("query_characters", "hits", "jobs", "recordings") for value in (0, -3, 1.5, "2")),
    {"queue": -1},
    {"queue": 0.5},
]


@pytest.mark.parametrize("change", LIMITS, ids=str)
def test_a_limit_that_makes_no_sense_is_refused(change: dict[str, Any], ended: Ended) -> None:
    with ended.refused(GROUP, f"Limits({change})", *change, re.compile("give a number above zero|give a whole number")):
        Limits(**change)


def test_what_is_misspelt_is_no_setting() -> None:
    for settings in (TrainingSettings, Cutting, Limits):
        with pytest.raises(TypeError, match="epochz"):
            settings(epochz=3)  # type: ignore[call-arg]


def test_the_encoders_of_a_profile_that_is_wrong_are_refused_by_name(ended: Ended) -> None:
    from dataclasses import replace

    profile = replace(PROFILES["pocket"](), speech_encoder="pocket-cct")
    with ended.refused(GROUP, "a profile whose encoder is misspelt", "pocket-cct") as caught:
        profile.encoders()
    assert isinstance(caught.value, CheckpointError) and math.isfinite(profile.seed)
