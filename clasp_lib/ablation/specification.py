"""What is compared, in one TOML file: systems, seeds, learning rates, and the questions that they are to answer."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from clasp_lib.errors import ClaspError
from clasp_lib.fusion import build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.profiles import PROFILES, get_profile
from clasp_lib.training import TrainingSettings

_LISTS = {"fusions": list, "losses": list, "speech_encoders": list}


class System(NamedTuple):
    """What is compared."""

    fusion: str
    loss: str
    speech_encoder: str


class Cell(NamedTuple):
    """One training."""

    fusion: str
    loss: str
    speech_encoder: str
    seed: int
    learning_rate: float

    @property
    def system(self) -> System:
        """What is trained."""
        return System(self.fusion, self.loss, self.speech_encoder)


class Question(NamedTuple):
    """Does the first differ from the second?"""

    name: str
    first: System
    second: System


@dataclass(frozen=True)
class Ablation:
    """A specification that was read; see `read_ablation`.

    Attributes:
        systems: how many seeds each is trained with, 0, 1, ...; the first system is the one that others differ from.
        learning_rates: if several, each system gets the one with the best mean validation MRR over `tuning_seeds`.
        spec: the tables of the file as they were.
    """

    name: str
    profile: str
    default: System
    settings: TrainingSettings
    learning_rates: tuple[float, ...]
    tuning_seeds: int
    systems: Mapping[System, int]
    questions: tuple[Question, ...]
    spec: Mapping[str, Any]


def read_ablation(path: str | Path) -> Ablation:
    """Read a specification.

        profile = "pocket"                  # whose data and encoders
        seeds = 12                          # of each system, unless its grid says otherwise
        learning_rates = [3e-4, 1e-3]       # tried for each system on the validation split ...
        tuning_seeds = 3                    # ... with so many seeds
        [settings]                          # what TrainingSettings has, but seed and learning_rate
        epochs = 40
        [[grid]]                            # systems: each fusion with each loss and each speech encoder
        fusions = ["concatenation", "gating"]
        losses = ["contrastive"]            # what is left out is: concatenation, contrastive, the profile's encoder
        [[questions]]                       # all of them are one family of hypotheses
        name = "do gates help?"
        first = { fusion = "gating" }
        second = { fusion = "concatenation" }

    Raises:
        ClaspError: not TOML, or a key, type or name that is not known; the message names file and key.
    """
    try:
        spec = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ClaspError(f"{path}: cannot be read as TOML ({error}).") from error
    return parse_ablation(spec, Path(path).name)


def parse_ablation(spec: Mapping[str, Any], name: str) -> Ablation:
    """The same for tables that were read already; `name` is that of the file, for messages and the record."""
    top = {"profile": str, "seeds": int, "learning_rates": list, "tuning_seeds": int}
    _check(
        spec, name, {**top, "settings": dict, "grid": list, "questions": list}, required=("profile", "seeds", "grid")
    )
    of_settings = {f.name: bool if f.default is None else type(f.default) for f in fields(TrainingSettings)}
    of_settings = {key: kind for key, kind in of_settings.items() if key not in ("seed", "learning_rate")}
    settings = spec.get("settings", {})
    _check(settings, f"{name}, [settings]", of_settings)
    try:
        right_settings = replace(TrainingSettings(), **settings)
    except ClaspError as error:
        raise ClaspError(f"{name}, [settings]: {error}") from error
    rates = spec.get("learning_rates", [TrainingSettings().learning_rate])
    if not rates or any(not isinstance(rate, float) or not 0 < rate < 1 for rate in rates):
        raise ClaspError(f"{name}: learning_rates is {rates!r}; give numbers above 0 and below 1.")
    if spec["profile"] not in PROFILES:
        raise ClaspError(f"{name}: profile {spec['profile']!r} is not known. Choose from {', '.join(PROFILES)}.")
    default = System("concatenation", "contrastive", get_profile(spec["profile"]).speech_encoder)
    systems: dict[System, int] = {}
    for number, grid in enumerate(spec["grid"], 1):
        where = f"{name}, [[grid]] {number}"
        _check(grid, where, {**_LISTS, "seeds": int})
        for system in _product(grid, default, where):
            seeds = grid.get("seeds", spec["seeds"])
            _check_system(system, seeds, where)
            systems[system] = max(seeds, systems.get(system, 0))
    if not systems:
        raise ClaspError(f"{name}: grid is empty; give one [[grid]] at least.")
    if spec.get("tuning_seeds", 1) < 1:
        raise ClaspError(f"{name}: tuning_seeds is {spec['tuning_seeds']}; give 1 or more.")
    questions = []
    for number, table in enumerate(spec.get("questions", []), 1):
        where = f"{name}, [[questions]] {number}"
        _check(table, where, {"name": str, "first": dict, "second": dict}, required=("name", "first", "second"))
        for side in ("first", "second"):
            _check(table[side], f"{where}, {side}", dict.fromkeys(System._fields, str))
        question = Question(table["name"], *(default._replace(**table[side]) for side in ("first", "second")))
        missing = [system for system in question[1:] if system not in systems]
        if missing or question.first == question.second:
            problem = f"no grid trains {tuple(missing[0])}" if missing else "both sides are the same"
            raise ClaspError(f"{where}: {problem}. A question names two systems of the grids.")
        questions.append(question)
    if len({question.name for question in questions}) < len(questions):
        raise ClaspError(f"{name}: two questions have the same name.")
    return Ablation(
        *(name, spec["profile"], default, right_settings, tuple(rates)),
        *(spec.get("tuning_seeds", 1), systems, tuple(questions), spec),
    )


def cells(ablation: Ablation, rates: Mapping[System, float] | None = None) -> list[Cell]:
    """All trainings in order; while `rates`, the learning rate of each system, are not known, those that tell them."""
    if rates is not None:
        return [
            Cell(*system, seed, rates[system]) for system, seeds in ablation.systems.items() for seed in range(seeds)
        ]
    return [
        Cell(*system, seed, rate)
        for system, seeds in ablation.systems.items()
        for rate in ablation.learning_rates
        for seed in range(min(seeds, ablation.tuning_seeds))
    ]


def _check(table: Any, where: str, kinds: Mapping[str, type], required: Sequence[str] = ()) -> None:
    if not isinstance(table, dict):
        raise ClaspError(f"{where}: is {table!r}; expected a table.")
    for key, value in table.items():
        if key not in kinds:
            raise ClaspError(f"{where}: {key!r} is not known. Choose from {', '.join(kinds)}.")
        right = type(value) is kinds[key] or (kinds[key] is float and type(value) is int)
        if not right:
            raise ClaspError(f"{where}: {key} is {value!r}; expected {kinds[key].__name__}.")
    for key in required:
        if key not in table:
            raise ClaspError(f"{where}: {key!r} is missing.")


def _product(grid: Mapping[str, Any], default: System, where: str) -> list[System]:
    lists = [grid.get(key, [usual]) for key, usual in zip(_LISTS, default, strict=True)]
    if any(not names or not all(isinstance(name, str) for name in names) for names in lists):
        raise ClaspError(f"{where}: fusions, losses and speech_encoders are lists of names, none of them empty.")
    fusions, losses, encoders = lists
    return [System(fusion, loss, encoder) for encoder in encoders for fusion in fusions for loss in losses]


def check_system(system: System) -> None:
    """Find out in no time what training would find out after its features are made.

    Raises:
        ClaspError: fusion or loss is not known, or they do not go together.
    """
    fusion, loss = build_fusion(system.fusion, 64, 64, 64), build_loss(system.loss, 64)
    if fusion.takes_frames and "other" in loss.needs:
        raise ClaspError(f"{system.loss!r} compares mean vectors, and {system.fusion!r} takes frames.")


def _check_system(system: System, seeds: int, where: str) -> None:
    try:
        check_system(system)
    except ClaspError as error:
        raise ClaspError(f"{where}: {error}") from error
    if seeds < 2:
        raise ClaspError(f"{where}: seeds is {seeds}; without a second one nothing is known of other seeds.")
