"""A profile is chosen by name or variable, keeps its things in its cache, and builds a dataset once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import clasp_lib
from clasp_lib import get_profile
from clasp_lib.corpus import SPLITS, Sentence, pocket_brown
from clasp_lib.errors import ClaspError
from clasp_lib.profiles import PROFILES, Profile


def test_pocket_is_the_default_and_the_variable_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLASP_PROFILE", raising=False)
    assert get_profile() == PROFILES["pocket"]() == get_profile("pocket")
    monkeypatch.setenv("CLASP_PROFILE", "marble")
    with pytest.raises(ClaspError, match=r"'marble'.*pocket"):
        get_profile()
    assert get_profile("pocket").name == "pocket"  # what is asked for by name wins
    monkeypatch.setenv("CLASP_PROFILE", "")
    assert get_profile().name == "pocket"


@pytest.mark.parametrize("name", ["Pocket", "nowhere", "../pocket"])
def test_an_unknown_profile_is_refused_with_the_choice(name: str) -> None:
    with pytest.raises(ClaspError, match="pocket"):
        get_profile(name)


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLASP_CACHE", str(tmp_path))
    assert get_profile("pocket").cache == tmp_path / "pocket"
    monkeypatch.delenv("CLASP_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert get_profile("pocket").cache == tmp_path / "home" / ".cache" / "clasp" / "pocket"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Profile:
    monkeypatch.setenv("CLASP_CACHE", str(tmp_path / "cache"))
    once = {"train": 1, "validation": 1, "test": 1}
    return dataclasses.replace(get_profile("pocket"), sentences=lambda: pocket_brown()[:32], voices_per_sentence=once)


def test_a_dataset_is_built_once(small: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small.dataset()
    assert list(first) == list(SPLITS)
    assert sum(map(len, first.values())) == len(small.sentences())
    monkeypatch.setattr("clasp_lib.profiles.build_speech_brown", lambda *a, **k: pytest.fail("built twice"))
    again = small.dataset()
    assert again["test"].to_dict() == first["test"].to_dict()
    assert len(list(small.cache.iterdir())) == 1


def test_another_recipe_is_another_dataset(small: Profile, tmp_path: Path) -> None:
    small.dataset()
    other = dataclasses.replace(small, seed=1)
    assert other.dataset()["test"]["text"] != small.dataset()["test"]["text"]
    assert len(list(small.cache.iterdir())) == 2
    small.dataset(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "dataset_dict.json").is_file()


def test_sentences_that_cannot_be_spoken_are_reported(small: Profile) -> None:
    odd = dataclasses.replace(small, sentences=lambda: [*pocket_brown()[:32], Sentence("odd-1", ") (", "news")])
    with pytest.warns(UserWarning, match=r"1 clips are left out, e\.g\. .*\) \("):
        dataset = odd.dataset()
    assert sum(map(len, dataset.values())) == 32
    (folder,) = odd.cache.iterdir()
    assert json.loads((folder / "skipped.json").read_text())[0][0] == "odd-1-0"


def test_what_is_published_has_a_stand_in_where_there_is_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLASP_CACHE", str(tmp_path))
    assert get_profile("paper").from_hub("llm-lab/CLASP") == "llm-lab/CLASP"
    assert list(tmp_path.iterdir()) == []
    pocket, tiny, paper = (get_profile(name) for name in ("pocket", "paper-tiny", "paper"))
    for name in ("llm-lab/CLASP", "llm-lab/SpeechBrown", "google/fleurs", paper.speech_encoder, paper.text_encoder):
        assert Path(pocket.from_hub(name)).is_dir() and pocket.from_hub(name).endswith(name)
    assert Path(pocket.from_hub("torchvision/efficientnet_b7")).is_file()
    assert tiny.speech_encoder == pocket.from_hub(paper.speech_encoder) and not tiny.meaningful
    assert len(tiny.sentences()) == 15 * 48 and len({s.category for s in tiny.sentences()}) == 15
    assert tiny.synthesizer().sampling_rate == 22_050


def test_the_models_of_a_profile_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLASP_CACHE", str(tmp_path))
    for name, search in (("pocket", "linear"), ("paper-tiny", "concatenation")):
        models = get_profile(name).models
        assert models.keys() == {"concatenation", "gating", "search"}
        for kind, options in models.items():
            expected = search if kind == "search" else kind
            assert clasp_lib.CLASP.from_pretrained(**options, device="cpu").fusion_name == expected


def test_the_package_shows_its_names_before_it_loads_them() -> None:
    for name in ("CLASP", "SpeechIndex", "locate", "evaluate_retrieval", "ClaspError", "Hit", "Moment"):
        assert name in dir(clasp_lib) and name in clasp_lib.__all__
        assert getattr(clasp_lib, name).__name__ == name
    with pytest.raises(AttributeError, match="clap"):
        clasp_lib.clap  # noqa: B018
