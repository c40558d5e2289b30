"""A GPU without room: fewer at once, the same result; and where that cannot be, a word on what helps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Encoders

from clasp_lib.batches import Table
from clasp_lib.encoders.checkpoints import with_less_at_once
from clasp_lib.errors import ClaspError
from clasp_lib.features import extract_features, extract_frames
from clasp_lib.fusion import Fusion, build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.training import TrainingSettings, fuse, train_fusion
from hard.conftest import Ended, check_message
from hard.jobs import features, rows

GROUP = "out of memory"
CLOSE = 1e-5
"""Of vectors of other batches, float32: a CPU adds up in another order when it has more rows."""


def refuse() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


class Small:
    """A network on a device that has room for so many rows."""

    def __init__(self, network: torch.nn.Module, room: int) -> None:
        self.room, self.asked = room, list[int]()
        self._hook = network.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = next(x for x in (*given, *named.values()) if hasattr(x, "__len__"))
        count = len(first["input_ids"] if isinstance(first, Mapping) else first)
        self.asked.append(count)
        if count > self.room:
            refuse()

    def remove(self) -> None:
        self._hook.remove()


@pytest.fixture
def small(encoders: Encoders) -> Iterator[Any]:
    """Makes the device small, for an encoder."""
    made: list[Small] = []

    def make(number: int, room: int) -> Small:
        network = encoders[number]._model
        if number == 2:  # a sentence encoder gets a dictionary of tokens
            network = network[0]
        made.append(Small(network, room))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def clips() -> Any:
    """Ten clips of a tenth of a second and more, and what is said in them."""
    texts = [f"{'word ' * (i + 1)}{i}" for i in range(10)]
    return rows().remove_columns("text").add_column("text", texts)


@pytest.mark.parametrize("room", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_features_are_the_same_with_less_room(
    encoders: Encoders, small: Any, tmp_path: Path, number: int, room: int, ended: Ended
) -> None:
    expected = extract_features(clips(), *encoders, tmp_path / "roomy", batch_size=8)
    device = small(number, room)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = extract_features(clips(), *encoders, tmp_path / "small", batch_size=8)
    said = [str(each.message) for each in caught if "too little memory" in str(each.message)]
    assert len(said) == (3 if room == 1 else 2) and "8 at once; going on with 4" in said[0]
    assert max(device.asked) == 8 and device.asked[-1] <= room
    for name in ("speech", "picture", "text"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=CLOSE)
    assert found.sentence_ids == expected.sentence_ids and found.skipped == []
    again = extract_features(clips(), *encoders, tmp_path / "small", batch_size=8)  # all of it was stored
    assert np.array_equal(again.speech, found.speech) and np.array_equal(again.text, found.text)
    ended(GROUP, f"features, {('speech', 'picture', 'text')[number]}, room for {room}", "unharmed")


def test_shards_that_follow_begin_with_what_fitted(
    encoders: Encoders, small: Any, monkeypatch: pytest.MonkeyPatch, ended: Ended
) -> None:
    monkeypatch.setattr("clasp_lib.features.SHARD", 5)
    device = small(0, 2)
    with pytest.warns(UserWarning, match="too little memory"):
        extract_features(clips(), *encoders, batch_size=4)
    assert device.asked.count(4) == 1, "the second shard tried again what had failed"
    ended(GROUP, "features, the next shard", "unharmed")


def test_frames_are_the_same_with_less_room(encoders: Encoders, small: Any, ended: Ended) -> None:
    expected = extract_frames(clips(), encoders[0], batch_size=8)
    small(0, 2)
    with pytest.warns(UserWarning, match="going on with 2"):
        found = extract_frames(clips(), encoders[0], batch_size=8)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=CLOSE)
    ended(GROUP, "frames", "unharmed")


def test_a_device_without_room_for_one_clip_is_said(
    encoders: Encoders, small: Any, tmp_path: Path, ended: Ended
) -> None:
    device = small(1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for on_error in ("raise", "skip"):
            case = f"features, no room for one, on_error={on_error}"
            with ended.refused(GROUP, case, "features, picture", "even for one", "other programs", 'device="cpu"'):
                extract_features(clips(), *encoders, tmp_path, on_error=on_error)  # type: ignore[arg-type]
    assert len(list(tmp_path.glob("speech-*/*.safetensors"))) == 1, "what was finished is lost"
    device.remove()
    assert len(extract_features(clips(), *encoders, tmp_path)) == 10, "too little memory counts as a bad clip"


class Full(torch.Tensor):
    """A tensor that no device has room for."""

    def to(self, *_: Any, **__: Any) -> torch.Tensor:
        refuse()
        raise AssertionError


def test_features_that_find_no_room_on_the_device_stay_outside(monkeypatch: pytest.MonkeyPatch, ended: Ended) -> None:
    """Another program may take what was free a moment ago."""
    given = features(24, 1)
    wanted = Table(given, torch.device("cpu"), resident=True).rows(np.array([3, 1]))
    real = torch.from_numpy
    with monkeypatch.context() as patch:
        patch.setattr(torch, "from_numpy", lambda array: real(array).as_subclass(Full))
        table = Table(given, torch.device("cpu"))
        with ended.refused(GROUP, "a table that must be resident", "cpu", "too little memory", "resident"):
            Table(given, torch.device("cpu"), resident=True)
    assert not table.resident
    found = table.rows(np.array([3, 1]))
    assert torch.equal(found.speech.as_subclass(torch.Tensor), wanted.speech)  # type: ignore[union-attr, arg-type]
    ended(GROUP, "a table", "unharmed")


def fresh() -> Fusion:
    torch.manual_seed(0)
    return build_fusion("linear", 6, 5, 8)


def test_fusing_is_the_same_with_less_room(ended: Ended) -> None:
    given, fusion = features(20, 1), fresh()
    expected = fuse(fusion, given)
    device = Small(fusion, 3)
    with pytest.warns(UserWarning, match="fusing: too little memory for 16 at once; going on with 8"):
        found = fuse(fusion, given, chunk_size=16)
    device.remove()
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)
    ended(GROUP, "fusing", "unharmed")


def test_training_with_less_room_at_validation_ends_the_same(ended: Ended) -> None:
    """The batches of a step are small; it is the validation that has thousands of rows."""
    settings, mrr = TrainingSettings(epochs=2, batch_size=4), []
    for room in (1_000, 5):
        fusion = fresh()
        device = Small(fusion, room)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = features(24, 1), features(10, 2)
            history = train_fusion(fusion, build_loss("contrastive", 8), *data, settings, "cpu", False)
        device.remove()
        mrr.append([row["mrr"] for row in history.rows])
    assert mrr[0] == mrr[1]
    ended(GROUP, "training, at its validation", "unharmed")


def test_a_batch_of_training_is_not_halved_in_silence(tmp_path: Path, ended: Ended) -> None:
    """Its other pairs are the negatives: with half of them it would be another training. What helps does help."""
    settings = TrainingSettings(epochs=3, batch_size=8, checkpoint_every=0.0)
    data = features(24, 1), features(10, 2)
    whole = fresh()
    train_fusion(whole, build_loss("contrastive", 8), *data, settings, "cpu", False)
    fusion = fresh()
    device, steps = Small(fusion, 1_000), 0

    def look(*_: Any) -> None:
        nonlocal steps
        steps += fusion.training
        if steps == 5:
            refuse()

    hook = fusion.register_forward_pre_hook(look)
    with pytest.raises(ClaspError) as caught:
        train_fusion(fusion, build_loss("contrastive", 8), *data, settings, "cpu", False, tmp_path)
    check_message(str(caught.value), "cpu", "too little memory", "batches of 8", "batch_size", "resident=False")
    hook.remove()
    device.remove()
    again, outside = fresh(), TrainingSettings(epochs=3, batch_size=8, checkpoint_every=0.0, resident=False)
    train_fusion(again, build_loss("contrastive", 8), *data, outside, "cpu", False, tmp_path)  # goes on from step 4
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in whole.state_dict().items())
    ended(GROUP, "training, a batch", "resumed")


def test_halving_keeps_nothing_of_what_failed(ended: Ended) -> None:
    """The error holds its frames, and they hold what lay on the device; the next try must not find it there."""
    import gc
    import weakref

    class Held:
        pass

    alive: list[Any] = []
    gc.disable()
    try:

        def work(size: int) -> int:
            assert not any(each() for each in alive), "what the failed attempt held is still there"
            held = Held()
            alive.append(weakref.ref(held))
            if size > 1:
                refuse()
            return size

        with pytest.warns(UserWarning, match="too little memory"):
            assert with_less_at_once(work, 8, "work") == (1, 1)
    finally:
        gc.enable()
    ended(GROUP, "halving", "unharmed")
