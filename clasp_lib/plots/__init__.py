"""Every figure of the book, in one style."""

from clasp_lib.plots.ablations import ablation_chart, question_chart, three_intervals_chart
from clasp_lib.plots.learning import disturbance_map, learning_curves, probe_chart, record_curves
from clasp_lib.plots.recordings import category_chart, phone_chart, waveform_and_spectrogram
from clasp_lib.plots.retrieval import group_chart, interval_chart, pool_curve_chart, rank_chart, similarity_heatmap
from clasp_lib.plots.robustness import robustness_chart, shift_chart

__all__ = [
    "ablation_chart",
    "category_chart",
    "disturbance_map",
    "group_chart",
    "interval_chart",
    "learning_curves",
    "phone_chart",
    "pool_curve_chart",
    "probe_chart",
    "question_chart",
    "rank_chart",
    "record_curves",
    "robustness_chart",
    "shift_chart",
    "similarity_heatmap",
    "three_intervals_chart",
    "waveform_and_spectrogram",
]
