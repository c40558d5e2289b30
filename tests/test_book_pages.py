"""The pages that sum the book up (results, changes, critique, responsible use): no typed result, no point left out."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from clasp_lib.convert import PUBLISHED, PUBLISHED_ENCODERS
from clasp_lib.encoders.spectrogram import DRAWINGS
from clasp_lib.languages import SMALL_100
from clasp_lib.losses import LOSSES
from clasp_lib.metrics import TIES
from clasp_lib.neural_synthesis import VITS

ROOT = Path(__file__).resolve().parents[1]
BOOK, CHAPTERS, POCKET = ROOT / "book", ROOT / "notebooks", ROOT / "clasp_lib" / "pocket"
NAMES = ("results", "changes", "critique", "responsible")
MIN_ALT_LENGTH = 20

POINTS = (
    "Noisy audio",
    "Specialised domains",
    "Large-scale audio",
    "Live audio",
    "No fine-tuning on speech of other languages",
    "A thin ablation of the fusion",
    "Unseen and low-resource languages",
)
"""What is held against CLASP."""

WISHES = (
    "the same every time",
    "`encode()`",
    "tower of dependencies",
    "how to train",
    "another speech encoder",
    "timestamps",
    "several languages",
    "intervals and significance",
    "caches that resume",
    "transcript pipeline",
    "streaming",
    "noise at a stated ratio",
)
"""What users ask for."""

NOT_RESULTS = re.compile(
    r"CC BY(?:-[A-Z]+)* \d\.\d|CC0 \d\.\d|(?:Apache|GPL|LGPL|AGPL)-\d\.\d|OFL \d\.\d|BSD-\d|wav2vec 2\.0|SHA-256"
)
"""Names that hold a number with a point, and measure nothing."""


def page(name: str) -> str:
    """The source of a page without its header."""
    return re.sub(r"\A---\n.*?\n---\n", "", (BOOK / f"{name}.md").read_text("utf-8"), flags=re.DOTALL)


def cells(text: str) -> list[tuple[dict[str, Any], str]]:
    """Options and code of each cell that is executed."""
    found = []
    for block in re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if long := re.match(r"---\n(.*?)\n---\n", block, re.DOTALL):
            found.append((yaml.safe_load(long[1]), block[long.end() :]))
        else:
            short = re.match(r"(?::[^\n]*\n)*", block)[0]  # type: ignore[index]
            options = yaml.safe_load("\n".join(line[1:] for line in short.splitlines())) or {}
            found.append((options, block[len(short) :]))
    return found


def prose(text: str) -> str:
    """What a reader reads: without cells and without code in a line."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<!\})`[^`\n]+`", "", text)


def typed_results(text: str) -> list[str]:
    """Percentages and numbers with a point in the prose, but for those in a sentence that cites its source."""
    found = []
    for sentence in re.split(r"(?<=[.:;!?])\s+|\n\s*\n|\n(?=[-|#])", prose(text)):
        if "{cite" not in sentence:
            found += re.findall(r"\d*\.\d+|\d+ ?%|\d+ percent", NOT_RESULTS.sub("", sentence))
    return found


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level."""
    level, _, _ = heading.partition(" ")
    parts = re.split(rf"^{re.escape(heading)}\n", text, flags=re.MULTILINE)
    assert len(parts) == 2, f"{heading!r} occurs {len(parts) - 1} times"
    return re.split(rf"^#{{1,{len(level)}}} ", parts[1], flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", NAMES)
def test_no_result_is_typed_into_the_prose(name: str) -> None:
    assert not typed_results(page(name)), f"{name}: let a cell print it, or cite the source in the same sentence"


@pytest.mark.parametrize("sentence", ["MRR rises to 0.47.", "It wins in 95% of cases.", "That is .5 of it; see there."])
def test_a_typed_result_is_noticed(sentence: str) -> None:
    assert typed_results(f"Fine.\n\n{sentence}\n\n```{{code-cell}} ipython3\n0.5\n```\n")
    cited = sentence.replace(".", " {cite:p}`abootorabi2025clasp`.") if sentence.count(".") == 1 else ""
    assert not typed_results(cited) and not typed_results("Text: CC BY 4.0 and `0.07`, under Apache-2.0.")


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_plain_python(name: str) -> None:
    found = cells(page(name))
    assert len(found) >= 5
    for _, code in found:
        compile(code, name, "exec", ast.PyCF_ONLY_AST)


@pytest.mark.parametrize("name", NAMES)
def test_figures_have_a_caption_a_name_and_alt_text(name: str) -> None:
    drawn = [
        options.get("mystnb", {}) for options, code in cells(page(name)) if "subplots(" in code or "_chart(" in code
    ]
    assert len(drawn) == (1 if name == "results" else 0)
    for options in drawn:
        assert options["figure"]["name"].startswith("fig-") and options["figure"]["caption"]
        assert len(options["image"]["alt"]) >= MIN_ALT_LENGTH


@pytest.mark.parametrize("name", NAMES)
def test_linked_pages_and_chapters_exist(name: str) -> None:
    text = page(name)
    targets = re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    assert targets
    for target in targets:
        folder = ROOT if target.startswith("/") else BOOK
        files = [folder / f"{target.lstrip('/')}{suffix}" for suffix in (".ipynb", ".md")]
        assert any(file.is_file() for file in files), f"{name} links to {target}"
    for chapter in re.findall(r'"(\d\d_\w+)"', text):
        assert (CHAPTERS / f"{chapter}.ipynb").is_file(), f"{name} links to {chapter}"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_how_its_records_were_made(name: str) -> None:
    code = "\n".join(code for _, code in cells(page(name)))
    shown = all(f'"{key}"' in code for key in ("command", "date", "commit", "machine"))
    assert shown or all(f"record['{key}']" in code for key in ("command", "date", "commit", "machine"))
    assert "recorded" in page(name)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_library_exist(name: str) -> None:
    for dotted in re.findall(r"`(clasp_lib(?:\.\w+)+)`", page(name)):
        module, _, attribute = dotted.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, attribute) or importlib.util.find_spec(dotted), f"{name} names {dotted}"


@pytest.mark.parametrize("point", POINTS)
def test_each_point_of_the_critique_is_answered_in_a_section(point: str) -> None:
    text = page("critique")
    part = section(text, f"## {point}")
    for piece in ("**The critique.**", "**What this book did.**", "**Open.**"):
        assert part.count(piece) == 1, f"{point}: {piece}"
    assert cells(part), f"{point}: no number"
    label = re.search(rf"^\(([\w-]+)\)=\n+## {re.escape(point)}$", text, re.MULTILINE)
    assert label and f"| [{point}]({label[1]}) |" in text, f"{point}: not in the table at the top"


def test_the_critique_has_no_other_points() -> None:
    headings = re.findall(r"^## (.+)$", page("critique"), re.MULTILINE)
    assert headings == [*POINTS, "What users ask for, and nobody ships", "Where the numbers come from"]


def test_each_wish_has_an_answer_and_a_place() -> None:
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \| (.+?) \|$",
        section(page("critique"), "## What users ask for, and nobody ships"),
        re.MULTILINE,
    )
    for wish in WISHES:
        (row,) = [row for row in rows if wish in row[0]]
        assert row[1].strip() and "{doc}" in row[2]
    assert len(rows) == len(WISHES) + 1  # the head


CHANGES = re.findall(r"^### (.+)$", page("changes"), re.MULTILINE)


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_says_what_why_how_much_and_how_to_undo_it(change: str) -> None:
    part = section(page("changes"), f"### {change}")
    for piece in ("- **Reference:**", "- **Here:**", "- **Back:**"):
        assert part.count(piece) == 1, f"{change}: {piece}"
    code = "\n".join(code for _, code in cells(part))
    assert len(re.findall(r"^(?:effect|ablation)\(", code, re.MULTILINE)) == 1, f"{change}: measured, or said not to be"


def test_the_changes_cover_what_is_known_of_the_reference() -> None:
    assert len(CHANGES) == len(set(CHANGES)) >= 20
    text = page("changes").lower()
    for known in (
        "temperature",
        "by row",
        "tick labels",
        "however long",
        "softmax",
        "ties",
        "loops",
        "huber",
        "pickle",
    ):
        assert known in text, known


def test_the_ways_back_exist() -> None:
    text = page("changes")
    losses = re.findall(r'build_loss\("(\w+)"', text)
    assert "contrastive_inverted" in losses and set(losses) <= set(LOSSES)
    assert set(re.findall(r'drawing="(\w+)"', text)) <= set(DRAWINGS)
    assert set(re.findall(r'ties="(\w+)"', text)) <= set(TIES)
    for script in re.findall(r"`(benchmarks/\w+\.py)`", text):
        assert (ROOT / script).is_file(), script


LICENCES = section(page("responsible"), "## Every piece and its terms")


def test_the_licence_tables_name_all_that_the_package_ships() -> None:
    shipped = {path.name for path in POCKET.iterdir()}
    assert shipped >= {"brown", "ctc", "search", "efficientnet", "reports"}
    tables = "\n".join(line for line in LICENCES.splitlines() if line.startswith("|"))
    assert not [name for name in sorted(shipped) if f"`{name}`" not in tables]


def test_the_licence_tables_name_all_that_is_fetched() -> None:
    named = [PUBLISHED, VITS, SMALL_100, PUBLISHED_ENCODERS["speech_encoder"], "google/fleurs"]
    assert not [name for name in named if f"`{name}`" not in LICENCES]
    for word in ("EfficientNet-B7", "LaBSE", "Common Voice", "Brown corpus", "Tacotron 2", "eSpeak NG", "MathJax"):
        assert word in LICENCES, word


def test_the_licence_cell_lists_every_package_of_pocket(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {
        re.match(r"[\w.-]+", line)[0] for line in project["dependencies"] + project["optional-dependencies"]["pocket"]
    }  # type: ignore[index]
    ((_, code),) = [(options, code) for options, code in cells(LICENCES) if "def licence" in code]
    monkeypatch.chdir(BOOK)
    room: dict[str, Any] = {}
    exec("import pandas as pd\nSMALL = ''\n" + code, room)
    rows = {row["package"]: row for row in room["rows"]}
    assert wanted <= set(rows)
    assert rows["numpy"]["version"][0].isdigit() and rows["torch"]["licence by its metadata"]
    for package in project["optional-dependencies"]["pocket"]:
        assert f"`{re.match(r'[a-z0-9-]+', package)[0]}`" in LICENCES, package  # type: ignore[index]


def test_no_page_tells_who_speaks_in_common_voice() -> None:
    for name in NAMES:
        assert not re.search(r"common_voice_[a-z]{2}_\d+|client_id|speaker-\d", page(name)), name
