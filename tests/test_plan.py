"""The plan counts what the published files hold, and grows with what is asked for."""

from __future__ import annotations

import pytest

from clasp_lib.plan import GPUS, plan, published_networks


def test_networks_have_the_sizes_of_the_published_files() -> None:
    """On the hub HuBERT's file has 1.26 GB, LaBSE's 1.88 GB, B7's 255 MB or 267 million bytes."""
    sizes = {part: network.parameters for part, network in published_networks().items()}
    assert sizes["speech"] == 315_438_720
    assert sizes["speech, alternative"] == 94_371_712
    assert sizes["picture"] == 66_347_960
    assert sizes["text"] == 470_926_848
    assert sizes["text, alternative"] == 278_043_648
    assert sizes["speech"] * 4 / 1e9 == pytest.approx(1.26, abs=0.01)


def test_twice_the_clips_take_twice_the_time() -> None:
    once, twice = ({step.what: step for step in plan(n, 6.5, GPUS["T4"])} for n in (10_000, 20_000))
    for what, step in once.items():
        assert twice[what].hours == pytest.approx(2 * step.hours)
    assert once["speech vectors"].hours > once["text vectors"].hours > 0
    assert once["picture vectors"].disk == 10_000 * 1000 * 4


def test_a_faster_card_takes_less_time_and_a_larger_batch_more_memory() -> None:
    def speech(**options: float) -> tuple[float, float]:
        gpu = GPUS["A100" if options.pop("modern", 0) else "T4"]
        step = next(step for step in plan(1_000, 6.5, gpu, **options) if step.what == "speech vectors")  # type: ignore[arg-type]
        return step.hours, step.gpu_memory

    assert speech(modern=1)[0] < speech()[0] < speech(utilisation=0.1)[0]
    assert speech(batch_size=8)[1] < speech()[1] < GPUS["T4"].memory
