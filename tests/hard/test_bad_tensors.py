"""Broken vectors at every door that takes some: similarity, search, measures, losses, pooling, fusions, training."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Clip, Encoders

from clasp_lib import CLASP, SpeechIndex, evaluate_retrieval
from clasp_lib.evaluation import compare
from clasp_lib.features import Features
from clasp_lib.fusion import build_fusion
from clasp_lib.index.approximate import Approximate
from clasp_lib.index.nearest import Exact
from clasp_lib.losses import LOSSES, build_loss
from clasp_lib.moments.joining import join_clips
from clasp_lib.pooling import POOLINGS, Frames, pad_frames
from clasp_lib.probes import probe
from clasp_lib.protocols import evaluate_groups, evaluate_soft, length_groups
from clasp_lib.significance import bootstrap_groups, compare_paired, compare_systems, estimate, holm, sign_flip_test
from clasp_lib.space import centred, describe_space, embed_in_plane, find_hubs, separability
from clasp_lib.training import TrainingSettings, train_fusion
from hard.conftest import Ended

GROUP = "bad tensors"
WIDTH = 24


def unit(n: int, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def spoiled(value: float) -> np.ndarray:
    rows = unit(3)
    rows[1, 5] = value
    return rows


MATRICES: dict[str, tuple[Any, str]] = {
    "too narrow": (unit(2, WIDTH - 1), rf"\(2, {WIDTH - 1}\); expected \(n, {WIDTH}\)"),
    "too wide": (unit(2, WIDTH + 1), rf"\(2, {WIDTH + 1}\); expected \(n, {WIDTH}\)"),
    "one vector": (unit(1)[0], rf"\({WIDTH},\); expected \(n, {WIDTH}\)"),
    "three dimensions": (unit(4).reshape(2, 2, WIDTH), r"expected \(n, 24\)"),
    "a number": (5.0, r"expected \(n, 24\)"),
    "nothing": (None, r"expected \(n, 24\)"),
    "an empty list": ([], r"expected \(n, 24\)"),
    "ragged": ([[1.0], [1.0, 2.0]], r"is no array of numbers.*expected \(n, 24\)"),
    "words": ([["a"] * WIDTH], r"is no array of numbers.*expected \(n, 24\)"),
    "a text": ("abc", r"is no array of numbers.*expected \(n, 24\)"),
    "objects": (np.full((2, WIDTH), None), "is no array of numbers|NaN or infinite"),
    "mappings": ([{"a": 1}], "is no array of numbers"),
    "NaN": (spoiled(np.nan), "holds NaN or infinite values"),
    "infinity": (spoiled(np.inf), "holds NaN or infinite values"),
    "beyond float32": (unit(2).astype(np.float64) * 1e300, "holds NaN or infinite values"),
}


@pytest.fixture(scope="module")
def index(model: CLASP, clips: list[Clip]) -> SpeechIndex:
    return SpeechIndex.build(model, [clip.samples for clip in clips[:3]], metadata=[{"year": i} for i in range(3)])


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_is_no_matrix_of_vectors_is_refused(name: str, model: CLASP, index: SpeechIndex, ended: Ended) -> None:
    matrix, said = MATRICES[name]
    for door, call in (
        ("similarity, first", lambda: model.similarity(matrix, unit(2))),
        ("similarity, second", lambda: model.similarity(unit(2), matrix)),
        ("search_vectors", lambda: index.search_vectors(matrix)),
    ):
        with ended.refused(GROUP, f"{name}: {door}", re.compile(said, re.DOTALL)) as caught:
            call()
        assert str(caught.value).startswith(door.split(",")[-1].strip().removeprefix("search_"))


@pytest.mark.parametrize("name", ["double", "integers", "list", "tensor", "reversed", "transposed", "none"])
def test_odd_matrices_are_read(name: str, model: CLASP, index: SpeechIndex, ended: Ended) -> None:
    rows = unit(3)
    odd: Any = {
        "double": rows.astype(np.float64),
        "integers": np.eye(3, WIDTH, dtype=np.int64),
        "list": rows.tolist(),
        "tensor": torch.from_numpy(rows),
        "reversed": rows[::-1],
        "transposed": np.asfortranarray(rows),
        "none": rows[:0],
    }[name]
    straight = np.ascontiguousarray(odd, dtype=np.float32)
    np.testing.assert_allclose(model.similarity(odd, rows), model.similarity(straight, rows), atol=1e-6)
    assert index.search_vectors(odd) == index.search_vectors(straight)
    ended(GROUP, f"{name}: similarity, search_vectors", "accepted")


@pytest.mark.parametrize("k", [0, -1, 1.5, None, "3", True, float("nan")])
def test_a_number_of_hits_that_is_none_is_refused(k: Any, index: SpeechIndex, ended: Ended) -> None:
    with ended.refused(GROUP, f"k {k!r}: search", f"k is {k!r}; give a whole number of at least 1"):
        index.search("rain", k=k)
    with ended.refused(GROUP, f"k {k!r}: search_vectors", f"k is {k!r}; give a whole number of at least 1"):
        index.search_vectors(unit(1), k=k)


def test_more_hits_than_there_are_are_all(index: SpeechIndex, ended: Ended) -> None:
    for k in (10, 10**9, 10**30):
        assert len(index.search("rain", k=k)) == 3
        ended(GROUP, f"k {k:g}", "accepted")


WHERE: dict[str, tuple[Any, str]] = {
    "a text": ("year=3", "where is a str; give a mapping"),
    "a list": ([("year", 3)], "where is a list; give a mapping"),
    "a number for a name": ({3: "x"}, "the name 3 is not one"),
    "an empty name": ({"": "x"}, "the name '' is not one"),
    "a name that nothing has": ({"month": 3}, "no recording of the index has 'month'; they have"),
    "nothing": ({"year": None}, "'year' is None; compare with"),
    "one of nothing": ({"year": []}, "'year' is one of nothing"),
    "one of several kinds": ({"year": [1, "x"]}, "'year' holds .* values"),
    "a range without ends": ({"year": (None, None)}, "has two ends"),
    "a range of three": ({"year": (1, 2, 3)}, "has two ends"),
    "a range of two kinds": ({"year": (1, "x")}, "two numbers or two strings"),
    "a range of truth": ({"year": (True, None)}, "True and False have no order"),
    "a range to NaN": ({"year": (1, float("nan"))}, "finite numbers"),
    "NaN": ({"year": float("nan")}, "finite numbers"),
    "a text for a number": ({"year": "x"}, "'year' holds .* values, not such as 'x'"),
    "a mapping": ({"year": {"$gt": 3}}, "compare with strings, finite numbers"),
    "bytes": ({"year": b"x"}, "compare with strings, finite numbers"),
    "beyond 64 bits": ({"year": 10**30}, "'year' holds .* values, not such as 1000000"),
    "beyond 64 bits, from": ({"year": (-(10**30), None)}, "'year' holds .* values"),
    "half a character": ({"id": "\ud800"}, "'id' holds string values"),
    "half a character among others": ({"id": ["a", "\ud800"]}, "'id' holds string values"),
}


@pytest.mark.parametrize("name", WHERE)
def test_a_condition_that_makes_no_sense_is_refused(name: str, index: SpeechIndex, ended: Ended) -> None:
    where, said = WHERE[name]
    with ended.refused(GROUP, f"where: {name}", re.compile(said, re.DOTALL)):
        index.search("rain", where=where)


# The nearest rows --------------------------------------------------------------------------------------------------

ROWS: dict[str, tuple[Any, str]] = {
    "double": (unit(3).astype(np.float64), "float64 of shape.*give float32"),
    "one vector": (unit(1)[0], r"of shape \(24,\).*give float32 of shape \(n, d\)"),
    "no width": (np.zeros((3, 0), np.float32), r"of shape \(3, 0\)"),
    "a list": ([[1.0, 2.0]], "are list; give float32"),
    "two widths": ([unit(2), unit(2, 20)], "widths 24 and 20; give one model's"),
    "a view": (unit(3)[:, ::2], "ascontiguousarray"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_cannot_be_searched_are_refused(name: str, ended: Ended) -> None:
    rows, said = ROWS[name]
    for door, call in (("Exact", lambda: Exact(rows, "cpu")), ("Approximate.build", lambda: Approximate.build(rows))):
        with ended.refused(GROUP, f"rows, {name}: {door}", re.compile(said)):
            call()


@pytest.mark.parametrize(
    ("queries", "k", "allowed", "said"),
    [
        (unit(1).astype(np.float64), 1, None, "float64 of shape"),
        (unit(1)[0], 1, None, r"of shape \(24,\)"),
        (unit(1, 20), 1, None, "20 numbers each, the vectors 24"),
        ([[1.0]], 1, None, "are list; give float32"),
        (unit(1), 0, None, "k is 0"),
        (unit(1), True, None, "k is True"),
        (unit(1), 1, np.ones(2, bool), r"bool of shape \(2,\); give bool of shape \(3,\)"),
        (unit(1), 1, np.ones(3), r"float64 of shape \(3,\); give bool"),
    ],
)
def test_queries_that_do_not_fit_are_refused(queries: Any, k: int, allowed: Any, said: str, ended: Ended) -> None:
    with ended.refused(GROUP, f"Exact.search: {said}", re.compile(said)):
        Exact(unit(3), "cpu").search(queries, k, allowed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vectors": np.zeros((0, WIDTH), np.float32)}, "there are none to build an index of"),
        ({"kind": "tree"}, "kind 'tree': choose one of"),
        ({"kind": "ivfpq"}, "needs at least 1000 rows, and there are 30"),
        ({"recall": 1.0}, "give a share between 0 and 1"),
        ({"recall": float("nan")}, "give a share between 0 and 1"),
        ({"queries": unit(3, 20)}, "20 numbers each"),
    ],
)
def test_an_approximate_index_that_cannot_be_is_refused(options: dict, said: str, ended: Ended) -> None:
    with ended.refused(GROUP, f"Approximate.build: {said}", said):
        Approximate.build(**({"vectors": unit(30)} | options))


# Measures ----------------------------------------------------------------------------------------------------------

IDS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query_vectors": unit(3, 20)}, "20 wide, candidate vectors 24"),
        ({"query_vectors": unit(3)[0]}, r"shape \(24,\); give at least one row"),
        ({"query_vectors": np.zeros((0, WIDTH)), "query_ids": []}, "give at least one row"),
        ({"candidate_vectors": np.zeros((0, WIDTH)), "candidate_ids": []}, "give at least one row"),
        ({"query_vectors": spoiled(np.nan)}, "query_vectors: hold NaN or infinite"),
        ({"candidate_vectors": spoiled(np.inf)}, "candidate_vectors: hold NaN or infinite"),
        ({"query_vectors": unit(3) * np.float32(1e30), "candidate_vectors": unit(3) * np.float32(1e30)}, "overflow"),
        ({"query_ids": ["a", "b"]}, "3 rows, but there are 2 query_ids"),
        ({"candidate_ids": ["a"]}, "3 rows, but there are 1 candidate_ids"),
        ({"query_ids": ["a", "b", "z"]}, "no candidate with the same id, e.g. 'z'"),
        ({"ties": "lucky"}, "ties 'lucky' is no rule. Choose from"),
        ({"method": "guess"}, "method 'guess' is not known. Choose from"),
        ({"resamples": 0}, "resamples: 0; give at least 1"),
    ],
)
def test_a_measure_of_what_does_not_fit_is_refused(change: dict, said: str, ended: Ended) -> None:
    fine = {"query_vectors": unit(3), "candidate_vectors": unit(3), "query_ids": IDS, "candidate_ids": IDS}
    with ended.refused(GROUP, f"evaluate_retrieval: {said}", re.compile(said)):
        evaluate_retrieval(**(fine | change))


NO_NUMBERS: dict[str, Any] = {
    "ragged": [[1.0], [1.0, 2.0]],
    "words": [["a"] * WIDTH] * 3,
    "words for numbers": [["1"] * WIDTH] * 3,
    "a text": "abc",
    "nothing": None,
    "mappings": [{"a": 1}],
    "a set": {1, 2},
    "complex numbers": np.full((3, WIDTH), 1j),
    "dates": np.zeros((3, WIDTH), "datetime64[s]"),
    "a tensor with a gradient": torch.ones(3, WIDTH, requires_grad=True),
    "NaN": spoiled(np.nan),
    "infinity": spoiled(np.inf),
    "three dimensions": unit(4).reshape(2, 2, WIDTH),
}
GROUPS = [str(i % 20) for i in range(40)]
SCORES = np.linspace(0, 1, 40)
DOORS: dict[str, Callable[[Any], object]] = {
    "evaluate_retrieval": lambda bad: evaluate_retrieval(bad, unit(3), IDS, IDS),
    "evaluate_groups, queries": lambda bad: evaluate_groups(bad, unit(3), IDS, IDS, ["g"] * 3),
    "evaluate_groups, candidates": lambda bad: evaluate_groups(unit(3), bad, IDS, IDS, ["g"] * 3),
    "evaluate_soft": lambda bad: evaluate_soft(bad, unit(3), IDS, IDS, pools=[2]),
    "length_groups": length_groups,
    "estimate": estimate,
    "bootstrap_groups": lambda bad: bootstrap_groups({"mrr": bad}),
    "compare_paired": lambda bad: compare_paired(SCORES, bad),
    "compare_systems": lambda bad: compare_systems(unit(3), bad),
    "sign_flip_test": sign_flip_test,
    "holm": holm,
    "probe": lambda bad: probe(bad, ["x", "y"] * 20, GROUPS),
    "describe_space": lambda bad: describe_space(unit(3), bad, IDS),
    "separability": lambda bad: separability(bad, unit(40), GROUPS),
    "centred, vectors": lambda bad: centred(bad, np.zeros(WIDTH)),
    "centred, mean": lambda bad: centred(unit(3), bad),
    "find_hubs": lambda bad: find_hubs(unit(3), bad, k=1),
    "embed_in_plane": lambda bad: embed_in_plane(bad, perplexity=2),
    "join_clips": lambda bad: join_clips([unit(1)[0], bad], ["one", "two"]),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore:Creating a tensor")
def test_what_is_no_array_of_numbers_is_refused_wherever_one_is_read(door: str, ended: Ended) -> None:
    for name, bad in NO_NUMBERS.items():
        with ended.refused(GROUP, f"{door}: {name}", re.compile("no array of numbers|shape|finite|infinite|0 to 1")):
            DOORS[door](bad)


def test_a_silent_clip_is_joined_as_it_is(ended: Ended) -> None:
    joined = join_clips([np.zeros(1_600, np.float32), unit(1)[0]], ["nothing", "something"])
    assert np.isfinite(joined.samples).all()
    ended(GROUP, "join_clips: silence", "accepted")


def test_a_comparison_of_what_does_not_fit_is_refused(ended: Ended) -> None:
    for options, said in (({"measure": "luck"}, "'luck' is not known. Choose from"), ({"ties": "skip"}, "no pairs")):
        with ended.refused(GROUP, f"compare: {said}", said):
            compare(unit(3), unit(3, seed=1), unit(3), IDS, **options)  # type: ignore[arg-type]


# Learning ----------------------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[int], torch.Tensor]] = {
    "sentences": lambda n: torch.arange(n),
    "categories": lambda n: torch.zeros(n, dtype=torch.int64),
    "negatives": lambda n: torch.ones(n, 2, WIDTH),
    "other": lambda n: torch.ones(n, WIDTH),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_refuses_a_batch_that_is_none(name: str, ended: Ended) -> None:
    loss = build_loss(name, WIDTH)
    good = torch.from_numpy(unit(3))
    columns = {key: COLUMNS[key](3) for key in loss.needs}
    for what, speech, text in (
        ("no rows", good[:0], good[:0]),
        ("one vector", good[0], good[0]),
        ("another number of rows", good, good[:2]),
        ("another width", good, good[:, :20]),
        ("three dimensions", good[None], good[None]),
    ):
        with ended.refused(GROUP, f"{name}: {what}", r"both must be (n, d)"):
            loss(speech, text, **columns)
    with ended.refused(GROUP, f"{name}: a column too many", "needs the columns"):
        loss(good, good, **columns, weather=good)
    for key, column in columns.items():
        rest = {other: value for other, value in columns.items() if other != key}
        with ended.refused(GROUP, f"{name}: without {key}", "needs the columns", key):
            loss(good, good, **rest)
        with ended.refused(GROUP, f"{name}: {key} of another length", f"{key} has shape"):
            loss(good, good, **rest, **{key: column[:2]})
        wrong = column.long() if column.is_floating_point() else column.float()
        with ended.refused(GROUP, f"{name}: {key} of another kind", f"{key} is of"):
            loss(good, good, **rest, **{key: wrong})


@pytest.mark.parametrize("name", ["", "contrastiv", "CONTRASTIVE", "contrastive "])
def test_a_loss_that_is_not_known_is_refused(name: str, ended: Ended) -> None:
    with ended.refused(GROUP, f"build_loss({name!r})", repr(name), "contrastive"):
        build_loss(name, WIDTH)


@pytest.mark.parametrize("name", ["", "average", "Gating", "attention+", "+gating", "gating+attention", "a+b+gating"])
def test_a_fusion_that_is_not_known_is_refused(name: str, ended: Ended) -> None:
    with ended.refused(GROUP, f"build_fusion({name!r})", repr(name), "Choose from concatenation"):
        build_fusion(name, 8, 8, 8)


def test_a_fusion_of_other_widths_is_no_model(encoders: Encoders, ended: Ended) -> None:
    for widths in ((8, 20, 24), (32, 8, 24), (32, 20, 8)):
        with ended.refused(GROUP, f"fusion of {widths}", "was built for", "the encoders give"):
            CLASP(build_fusion("linear", *widths), *encoders, "linear")


def test_frames_that_are_none_are_refused(ended: Ended) -> None:
    for what, clips in (
        ("no clips", []),
        ("a clip without frames", [torch.zeros(3, 8), torch.zeros(0, 8)]),
        ("clips of two widths", [torch.zeros(3, 8), torch.zeros(3, 7)]),
        ("a vector", [torch.zeros(8)]),
    ):
        with ended.refused(GROUP, f"pad_frames: {what}", "pad_frames:"):
            pad_frames(clips)
    for name, build in POOLINGS.items():
        pooling = build(8, 6)
        for what, frames, said in (
            ("a tensor", torch.zeros(2, 3, 8), "pooling reads Frames, got Tensor. Make them with pad_frames"),
            ("another width", Frames(torch.zeros(2, 3, 7), torch.tensor([3, 2])), "expected (n, t, 8)"),
            ("no time", Frames(torch.zeros(2, 8), torch.tensor([3, 2])), "expected (n, t, 8)"),
        ):
            with ended.refused(GROUP, f"{name}: {what}", said):
                pooling(frames)
    for what, labels in (
        ("names", ["news"]),
        ("none", np.zeros((0, 6), np.float32)),
        ("another width", np.ones((2, 5), np.float32)),
        ("NaN", np.full((2, 6), np.nan, np.float32)),
    ):
        with ended.refused(GROUP, f"set_labels: {what}", "set_labels"):
            POOLINGS["label_attention"](8, 6).set_labels(labels)  # type: ignore[operator]


def features(n: int = 8, widths: tuple[int, int, int] = (24, 20, 16)) -> Features:
    rows = [unit(n, width, seed) for seed, width in enumerate(widths)]
    ids = [f"{i}" for i in range(n)]
    return Features(*rows, ids, ids, ["news"] * n, ["v"] * n)


@pytest.mark.parametrize(
    ("train", "validation", "settings", "said"),
    [
        (features(1), features(), {}, "training needs two sentences"),
        (features(), features(0), {}, "training needs two sentences"),
        (features(), features(), {"batch_size": 1}, "batches of at least two"),
        (features(8, (20, 20, 16)), features(), {}, "the fusion was built for"),
        (features(), features(8, (24, 20, 24)), {}, "the fusion was built for"),
    ],
)
def test_training_on_what_does_not_fit_is_refused(
    train: Features, validation: Features, settings: dict, said: str, ended: Ended
) -> None:
    with ended.refused(GROUP, f"train_fusion: {said} {settings}", said):
        train_fusion(
            build_fusion("linear", 24, 20, 16),
            build_loss("contrastive", 16),
            train,
            validation,
            TrainingSettings(epochs=1, **settings),
            "cpu",
            show_progress_bar=False,
        )
