"""Each example of CONTRIBUTING.md is run as it stands: registered, used, and taken out again."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import numpy as np
import pytest
import yaml

from clasp_lib.errors import ClaspError
from clasp_lib.fusion import FUSIONS, build_fusion
from clasp_lib.losses import LOSSES, build_loss
from clasp_lib.profiles import PROFILES, get_profile
from clasp_lib.training import TrainingSettings, train_fusion

if TYPE_CHECKING:
    from datasets import DatasetDict

    from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
    from clasp_lib.features import Features

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ONE_EPOCH = TrainingSettings(epochs=1, batch_size=16)
EVERY = 80  # of how many sentences of Pocket Brown one is spoken here


def examples(heading: str, language: str = "python") -> list[str]:
    """The blocks of code in a section of the guide."""
    parts = re.split(r"^## (.+)$", GUIDE, flags=re.MULTILINE)
    section = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def run(heading: str) -> dict[str, Any]:
    """Run the one example of a section; returns what it defines."""
    (code,) = examples(heading)
    room: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, f"CONTRIBUTING.md, {heading}", "exec"), room)
    return room


@contextlib.contextmanager
def as_before(table: MutableMapping[str, Any]) -> Iterator[None]:
    """Whatever the block adds to a table of names is taken out."""
    known = dict(table)
    try:
        yield
    finally:
        for name in set(table) - set(known):
            del table[name]
        assert table == known


@pytest.fixture(scope="module")
def pocket() -> tuple[SpeechEncoder, SpectrogramEncoder, TextEncoder]:
    """The encoders of the profile."""
    return get_profile("pocket").encoders()


@pytest.fixture(scope="module")
def clips() -> DatasetDict:
    """A few sentences of Pocket Brown, spoken by its voices."""
    from clasp_lib.speech_brown import build_speech_brown

    profile, shares = get_profile("pocket"), {"train": 0.7, "validation": 0.3, "test": 0.0}
    sentences = profile.sentences()[::EVERY]
    return build_speech_brown(sentences, profile.synthesizer(), fractions=shares, workers=1).dataset  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def features(clips: DatasetDict, pocket: Any) -> tuple[Features, Features]:
    """What the pocket encoders say of them: to train on, and to validate with."""
    from clasp_lib.features import extract_features

    train, validation = (extract_features(clips[split], *pocket) for split in ("train", "validation"))
    return train, validation


def trained(fusion: str, loss: str, features: tuple[Features, Features]) -> list[dict[str, float]]:
    """The rows of one epoch on the pocket features."""
    train, validation = features
    widths = (train.speech.shape[1], train.picture.shape[1], train.text.shape[1])
    network = build_fusion(fusion, *widths)
    return train_fusion(network, build_loss(loss, widths[2]), train, validation, ONE_EPOCH, "cpu", False).rows


def test_a_new_fusion_takes_what_the_guide_says(features: tuple[Features, Features]) -> None:
    with as_before(FUSIONS):
        run("A fusion")
        (row,) = trained("louder", "contrastive", features)
        assert np.isfinite(row["loss"]) and 0 < row["mrr"] <= 1
        assert build_fusion("attention+louder", 32, 20, 24).takes_frames
    with pytest.raises(ClaspError, match="louder"):
        build_fusion("louder", 32, 20, 24)


def test_a_new_loss_takes_what_the_guide_says(features: tuple[Features, Features]) -> None:
    import torch

    with as_before(LOSSES):
        run("A loss")
        (row,) = trained("linear", "margin", features)
        assert np.isfinite(row["loss"]) and 0 < row["mrr"] <= 1
        loss, right = build_loss("margin", 4), torch.eye(4)
        assert loss(right, right) == 0  # every wrong text is farther by one
        assert loss(right, right.roll(1, 0)) == pytest.approx(1.2)  # the right one is at 0, a wrong one at 1
    with pytest.raises(ClaspError, match="margin"):
        build_loss("margin", 4)


def test_a_new_encoder_takes_what_the_guide_says(clips: DatasetDict, pocket: Any, tmp_path: Path) -> None:
    from clasp_lib.audio import load_audio
    from clasp_lib.features import extract_features

    encoder = run("An encoder")["BandEnergies"]()
    waves = [load_audio(audio, encoder.sampling_rate) for audio in clips["validation"]["audio"][:3]]
    together, alone = encoder.encode(waves), np.concatenate([encoder.encode([wave]) for wave in waves])
    assert together.shape == (3, encoder.dimension) and together.dtype == np.float32
    assert np.array_equal(together, alone)  # a clip does not depend on the clips beside it
    tone = np.sin(2 * np.pi * 1_100 * np.arange(16_000) / 16_000).astype(np.float32)
    assert encoder.encode([tone])[0].argmax() == 1_100 // 200
    train, validation = (
        extract_features(clips[split].select(range(8)), encoder, *pocket[1:], folder=tmp_path)
        for split in ("train", "validation")
    )
    assert train.speech.shape == (8, 40)
    (row,) = trained("concatenation", "contrastive", (train, validation))
    assert np.isfinite(row["loss"])


def test_a_new_corpus_takes_what_the_guide_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLASP_CACHE", str(tmp_path))
    with as_before(PROFILES):
        room = run("A corpus")
        dataset = get_profile("proverbs").dataset()
        said = {text for split in dataset.values() for text in split["text"]}
        assert said == {sentence.text for sentence in room["proverbs"]()}
        assert (tmp_path / "proverbs").is_dir()
    with pytest.raises(ClaspError, match="proverbs"):
        get_profile("proverbs")


def test_a_new_chapter_takes_what_the_guide_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "02_speech_brown.ipynb", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    run("A chapter")
    chapter = nbformat.read(tmp_path / "notebooks" / "22_lengths.ipynb", as_version=4)
    nbformat.validate(chapter)
    assert chapter.cells[0].source.startswith("# ") and all(not c.outputs for c in chapter.cells if "outputs" in c)
    others = nbformat.read(ROOT / "notebooks" / "05_text_encoders.ipynb", as_version=4)
    first, usual = (next(c for c in book.cells if c.cell_type == "code") for book in (chapter, others))
    without_extras = [re.sub(r"clasp-lib\[[\w,]+\]", "", cell.source) for cell in (first, usual)]
    assert without_extras[0] == without_extras[1] and first.metadata == usual.metadata
    room: dict[str, Any] = {}
    for cell in chapter.cells:
        if cell.cell_type == "code" and cell is not first:
            exec(compile(cell.source, "22_lengths", "exec"), room)
    contents, line = (yaml.safe_load(text) for text in examples("A chapter", "yaml"))
    assert contents == [{"file": "notebooks/22_lengths"}]
    assert list(line) == ["notebooks/22_lengths"] and set(line["notebooks/22_lengths"]) == {"outcome", "loads"}
    assert "- file: notebooks/21_paper" in (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert re.search(r'^notebooks/21_paper: {outcome: ".+"}$', (ROOT / "book" / "index.md").read_text("utf-8"), re.M)


def test_the_guide_names_only_what_exists() -> None:
    text = re.sub(r"^```.*?^```$", "", GUIDE, flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`((?:clasp_lib|tests|benchmarks|notebooks|book)/[\w./]*)`", text))
    assert {"clasp_lib/fusion.py", "tests/test_fusion.py"} <= named
    for name in sorted(named):
        assert (ROOT / name).exists(), f"CONTRIBUTING.md names {name}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(examples("The way of a change", "bash")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"CONTRIBUTING.md names `make {target}`"


def test_the_page_of_the_book_is_the_guide() -> None:
    page = (ROOT / "book" / "contributing.md").read_text(encoding="utf-8")
    (after,) = re.findall(r"^:start-after: (.+)$", page, re.MULTILINE)
    assert GUIDE.count(after) == 1 and "{include} ../CONTRIBUTING.md" in page
