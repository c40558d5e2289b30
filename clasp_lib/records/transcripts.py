"""Oracle transcript, recognised transcript, direct: the record behind the chapter on transcripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clasp_lib.costs import measure_costs
from clasp_lib.model import CLASP
from clasp_lib.pipelines import compare_pipelines, embed_columns, query_values
from clasp_lib.pretraining.measure import HeldOut, pocket_brown_test, recordings
from clasp_lib.profiles import Profile
from clasp_lib.transcription import Recogniser, load_recogniser

RECOGNISER = "pocket-ctc"
MODELS = ("pocket-concatenation", "pocket-search")
OWN = "pocket_brown_test"
"""The test whose texts are this project's: its transcripts and ranks are kept clip by clip."""

RESAMPLES = 2_000


def measure(profile: Profile, folders: Mapping[str, Path], seed: int = 0) -> dict[str, Any]:
    """The three columns of each model on the profile's test split and on folders of recordings, the costs of one.

    Of recordings of people only sums are kept.
    """
    recogniser = load_recogniser(RECOGNISER)
    models = {name: CLASP.from_pretrained(name) for name in MODELS}
    tests = {OWN: pocket_brown_test(profile)} | {name: recordings(folder) for name, folder in folders.items()}
    record: dict[str, Any] = {"recogniser": RECOGNISER, "resamples": RESAMPLES, "tests": {}}
    for name, test in tests.items():
        transcripts = recogniser.transcribe(test.waves)
        found = {model: columns_of(models[model], recogniser, test, transcripts, seed) for model in MODELS}
        record["tests"][name] = {
            key: found[MODELS[0]][key] for key in ("clips", "seconds", "sentences", "transcription")
        }
        record["tests"][name]["models"] = {
            model: {key: part[key] for key in ("columns", "comparisons", "errors")} for model, part in found.items()
        }
        if name == OWN:
            record["transcripts"] = transcripts
            record["ranks"] = {model: ranks_of(models[model], test, transcripts) for model in MODELS}
    own = tests[OWN]
    record["costs"] = measure_costs(models[MODELS[0]], recogniser, own.waves[:32], own.texts[:32])
    return record


def columns_of(
    model: CLASP, recogniser: Recogniser, test: HeldOut, transcripts: list[str], seed: int = 0
) -> dict[str, Any]:
    """`compare_pipelines` without costs."""
    return compare_pipelines(
        model, recogniser, *test, seed=seed, cost=False, resamples=RESAMPLES, transcripts=transcripts
    )


def ranks_of(model: CLASP, test: HeldOut, transcripts: list[str]) -> dict[str, list[float]]:
    """By column the rank of each clip's text among all."""
    columns = embed_columns(model, test.waves, test.texts, transcripts)
    values, _ = query_values(
        columns, model.encode_text(test.texts, show_progress_bar=False), test.ids, "speech_to_text"
    )
    return {name: measures["mean_rank"].tolist() for name, measures in values.items()}
