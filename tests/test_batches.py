"""Rows arrive as they were stored, in an order that repeats."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from clasp_lib.batches import SentenceOrder, Table
from clasp_lib.errors import ClaspError
from clasp_lib.features import Features, concatenate_features

CPU = torch.device("cpu")


@pytest.fixture
def features() -> Features:
    """Ten clips of five sentences; the first two sentences are the same text."""
    rng = np.random.default_rng(0)
    speech, picture, text = (rng.standard_normal((10, width)).astype(np.float32) for width in (4, 3, 2))
    ids = [f"s{i // 2}" for i in range(10)]
    texts = ["It rains.", "It rains.", "it  rains", "it  rains", *"aabbcc"]
    categories = ["news", "news", "humor", "humor", "news", "news", "religion", "religion", "humor", "humor"]
    frames = [torch.from_numpy(rng.standard_normal((i + 1, 4)).astype(np.float32)) for i in range(10)]
    columns = {"negatives": rng.standard_normal((10, 3, 2)).astype(np.float32)}
    return Features(speech, picture, text, ids, texts, categories, ["v"] * 10, columns=columns, frames=frames)


def test_rows_come_in_the_order_asked_for(features: Features) -> None:
    batch = Table(features, CPU, ("negatives",)).rows(np.array([7, 0, 7]))
    assert isinstance(batch.speech, torch.Tensor)
    np.testing.assert_array_equal(batch.speech, features.speech[[7, 0, 7]])
    np.testing.assert_array_equal(batch.picture, features.picture[[7, 0, 7]])
    np.testing.assert_array_equal(batch.text, features.text[[7, 0, 7]])
    np.testing.assert_array_equal(batch.columns["negatives"], features.columns["negatives"][[7, 0, 7]])


def test_texts_and_categories_are_numbered(features: Features) -> None:
    columns = Table(features, CPU, ("sentences", "categories")).rows(np.arange(10)).columns
    assert columns["sentences"].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]  # the same words are the same text
    assert columns["categories"].tolist() == [1, 1, 0, 0, 1, 1, 2, 2, 0, 0]  # in alphabetical order
    assert columns["sentences"].dtype == columns["categories"].dtype == torch.int64


def test_frames_are_padded(features: Features) -> None:
    table = Table(features, CPU, frames=True)
    speech = table.rows(np.array([2, 5])).speech
    assert isinstance(speech, tuple)
    values, lengths = speech
    assert values.shape == (2, 6, 4) and lengths.tolist() == [3, 6]
    assert features.frames is not None
    assert torch.equal(values[0, :3], features.frames[2]) and torch.equal(values[1], features.frames[5])


def test_what_is_in_files_stays_there(features: Features, tmp_path: Path) -> None:
    np.save(tmp_path / "speech.npy", features.speech)
    mapped = dataclasses.replace(features, speech=np.load(tmp_path / "speech.npy", mmap_mode="c"))
    assert Table(features, CPU).resident and not Table(mapped, CPU).resident
    assert not Table(features, CPU, resident=False).resident
    order = [np.array([1, 2]), np.array([9, 0]), np.array([4, 4])]
    for one, two in zip(Table(features, CPU).batches(order), Table(mapped, CPU).batches(order), strict=True):
        assert isinstance(one.speech, torch.Tensor) and isinstance(two.speech, torch.Tensor)
        assert torch.equal(one.speech, two.speech) and torch.equal(one.text, two.text)
    assert list(Table(mapped, CPU).batches([])) == []


def test_columns_that_are_missing_are_named(features: Features) -> None:
    bare = dataclasses.replace(features, columns={}, frames=None)
    with pytest.raises(ClaspError, match=r"needs the column 'other_speech'; the features have \['negatives'\]"):
        Table(features, CPU, ("other",))
    with pytest.raises(ClaspError, match="needs the column 'negatives'"):
        Table(bare, CPU, ("negatives",))
    with pytest.raises(ClaspError, match="with `frames`"):
        Table(bare, CPU, frames=True)
    with pytest.raises(ClaspError, match="compares two versions"):
        Table(features, CPU, ("other",), frames=True)


def test_every_sentence_comes_once_an_epoch() -> None:
    ids = [name for name in "abcdefg" for _ in range(3)]
    order = SentenceOrder(ids, 3, seed=0)
    assert len(order) == 2 and order.epoch(1).shape == (2, 3)
    for epoch in range(1, 6):
        said = [ids[row] for row in order.epoch(epoch).ravel()]
        assert len(set(said)) == 6
    assert len({tuple(order.epoch(epoch).ravel()) for epoch in range(20)}) == 20
    heard = {row for epoch in range(60) for row in order.epoch(epoch).ravel()}
    assert heard == set(range(21))
    np.testing.assert_array_equal(order.epoch(4), SentenceOrder(ids, 3, seed=0).epoch(4))
    assert not np.array_equal(order.epoch(4), SentenceOrder(ids, 3, seed=1).epoch(4))


def test_a_batch_is_no_larger_than_the_sentences() -> None:
    order = SentenceOrder(["x", "y", "x"], 256, seed=0)
    assert order.batch_size == 2 and len(order) == 1


def test_joined_features_keep_what_all_have(features: Features) -> None:
    more = dataclasses.replace(features, columns={**features.columns, "other_speech": features.speech})
    joined = concatenate_features([features, more])
    assert len(joined) == 20 and list(joined.columns) == ["negatives"]
    assert joined.columns["negatives"].shape == (20, 3, 2)
    assert joined.frames is not None and len(joined.frames) == 20
    assert concatenate_features([features, dataclasses.replace(features, frames=None)]).frames is None
