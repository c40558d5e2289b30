"""The figures of the chapter on moments show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from clasp_lib.localization import EncodedRecording, Moment
from clasp_lib.localization.cutting import Cutting, Pieces
from clasp_lib.localization.windows import cut
from clasp_lib.moments import Segment
from clasp_lib.plots.moments import iou_chart, pieces_chart, recall_chart, score_chart, windows_chart

RATE = 16_000
SEGMENT = Segment(1.0, 3.0, "a")


@pytest.fixture(autouse=True)
def without_windows() -> None:
    import matplotlib

    matplotlib.use("Agg")


def sound() -> np.ndarray:
    samples = 0.001 * np.random.default_rng(0).standard_normal(8 * RATE)
    for start, end in ((1, 3), (4, 6)):
        samples[start * RATE : end * RATE] += 0.2 * np.sin(np.arange(2 * RATE) / 5)
    return samples.astype(np.float32)


def test_pieces_are_shaded_and_the_threshold_drawn() -> None:
    finder = Pieces(RATE, 0.14)
    pieces = list(finder.add(sound(), True))
    top, bottom = pieces_chart(sound(), pieces, finder.thresholds[0]).axes
    assert len(pieces) == 2 == len(top.patches) == len(bottom.patches)
    assert bottom.lines[1].get_ydata()[0] == finder.thresholds[0]
    assert top.patches[0].get_x() == pytest.approx(1, abs=0.06)


def test_every_window_is_a_bar() -> None:
    windows = [window for block in cut([sound()], RATE, Cutting()) for window in block]
    (axes,) = windows_chart(windows, [SEGMENT, Segment(4, 6, "b")]).axes
    assert len(axes.collections) == len(windows) == 3 and len(axes.patches) == 2


def test_moments_stand_out_among_the_scores() -> None:
    encoded = EncodedRecording(np.array([0.0, 1, 4]), np.array([3.0, 3, 6]), np.eye(3, dtype=np.float32), 8.0, None)  # type: ignore[arg-type]
    scores = np.array([0.1, 0.9, 0.2])
    (axes,) = score_chart(encoded, scores, [Moment(1, 3, 0.9), Moment(4, 6, 0.2)], SEGMENT).axes
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    drawn = np.array([segment[0] for segment in axes.collections[0].get_segments()])
    np.testing.assert_allclose(drawn, [[0, 0.1], [1, 0.9], [4, 0.2]])


def test_the_iou_is_written_beside_each_window() -> None:
    (axes,) = iou_chart(SEGMENT, [(1, 3), (1, 2), (2.5, 6)]).axes
    assert [text.get_text() for text in axes.texts] == ["IoU 1.00, found", "IoU 0.50, found", "IoU 0.10"]


def test_recall_is_drawn_against_length() -> None:
    rows = [
        {"system": name, "minutes": minutes, "recall_at_1": {"value": v, "low": v - 0.1, "high": v + 0.1}}
        for name, values in {"x": (0.8, 0.5), "y": (0.7, 0.6), "z": (0.1, 0.2)}.items()
        for minutes, v in zip((4, 1), values, strict=True)
    ]
    (axes,) = recall_chart(rows, {"x": "the first", "y": "the second"}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["the first", "the second"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 min", "4 min"]
    np.testing.assert_allclose(axes.containers[0].lines[0].get_ydata(), [0.5, 0.8])
