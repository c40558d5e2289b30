"""The library reads from top to bottom: a file imports only from files above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "clasp_lib"
LAYERS = (
    *(
        "errors",
        "arrays",
        "text_normalisation",
        "folders",
        "provenance",
        "audio",
        "players",
        "clip_map",
        "tables",
        "corpus",
        "synthesis",
        "speaking",
        "speech_brown",
    ),
    "dataset_card",
    *("encoders.checkpoints", "encoders.drawing", "encoders.speech", "encoders.spectrogram", "encoders.text"),
    *("encoders", "neural_synthesis", "tacotron2", "dropout", "pooling", "fusion", "convert", "tiny_corpora"),
    *("paper_tiny.files", "paper_tiny.speech", "paper_tiny.text", "paper_tiny.fusions", "paper_tiny"),
    *("published_corpora.clips", "published_corpora.common_voice", "published_corpora.fleurs"),
    *("published_corpora.speech_brown", "published_corpora"),
    *("profiles", "vector_store", "features", "losses", "hard_negatives"),
    *("significance.resampling", "significance.intervals", "significance.comparisons", "significance"),
    *("probes", "space", "metrics", "transcription"),
    *("run_state", "run_folder", "batches", "distributed", "training"),
    *("model_card", "model", "sentence_transformers_modules", "mteb_task", "evaluation", "console"),
    *("protocols.groups", "protocols.leaks", "protocols.pools", "protocols.pool_size", "protocols"),
    *("disturbances", "robustness", "shifts", "languages.texts", "languages.scores", "languages"),
    *("costs", "pipelines"),
    *("report.leaks", "report.measure", "report.charts", "report.blocks", "report.transcripts", "report.contents"),
    *("report.markdown", "report.page", "report.files"),
    *("report.command", "report", "report.__main__"),
    *("localization.cutting", "localization.windows", "localization.moments", "localization.transcript"),
    "localization",
    *("index.entries", "index.filters", "index.hits", "index.recordings", "index.nearest"),
    *("index.faiss_kinds", "index.approximate"),
    *("index.store", "index.segments", "index.manifest", "index.local"),
    *("index.milvus_connection", "index.milvus_filter", "index.milvus_collection", "index.milvus"),
    *("index.speech_index", "index"),
    *("moments.joining", "moments.keywords", "moments.scoring", "moments"),
    *("plots.style", "plots.recordings", "plots.learning", "plots.retrieval", "plots.ablations", "plots.robustness"),
    *("plots.moments", "plots", "plan"),
    *("pretraining", "pretraining.augmentation", "pretraining.synthesizers", "pretraining.clips", "pretraining.loop"),
    *("pretraining.speech", "pretraining.ablation", "pretraining.sentence", "pretraining.picture"),
    *("pretraining.heads", "pretraining.measure", "pretraining.__main__"),
    *("records", "records.transcripts", "records.robustness", "records.shifts"),
    *("records.moments", "records.index_vectors", "records.indexes", "records.__main__"),
    *("ablation.specification", "ablation.data", "ablation.runs", "ablation.record", "ablation", "ablation.__main__"),
    *("demo.texts", "demo.limits", "demo.look", "demo.words", "demo.recordings", "demo.collection", "demo.desk"),
    *("demo.view", "demo.tabs", "demo.app", "demo.launch", "demo"),
    *("cli.train", "cli.evaluate", "cli.search", "cli.index", "cli.locate", "cli.encode", "cli.demo", "cli"),
    "__main__",
)
FILES = sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


def module(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {node.module.removeprefix("clasp_lib.") for node in nodes if (node.module or "").startswith("clasp_lib.")}


def test_every_file_has_its_place() -> None:
    assert sorted(LAYERS) == sorted(map(module, FILES))


@pytest.mark.parametrize("path", FILES, ids=module)
def test_a_file_imports_only_from_files_above_it(path: Path) -> None:
    place = LAYERS.index(module(path))
    assert [name for name in imported(path) if LAYERS.index(name) >= place] == []
