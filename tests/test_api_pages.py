"""The API reference: all that can be imported is described once, with its docstring, and so is every command."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sphinx_external_toc.parsing import parse_toc_yaml
from test_browser import absent

import clasp_lib
from clasp_lib import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "book" / "api").glob("*.md"))}
HTML = ROOT / "_build" / "html" / "book" / "api"
MAX_HTML_BYTES = 400_000

# In no page, and why.
INTERNAL = {
    "arrays": "what is said of numbers that are none",
    "cli": "the page on the command line describes what it does",
    "console": "how commands speak; the page on the command line shows what it says of itself",
    "dropout": "inside the fusions",
    "folders": "how files are written",
    "model_card": "what lies in a model's folder for people and for other libraries",
    "paper_tiny": "random stand-ins for checkpoints",
    "pretraining": "the recipes of what ships",
    "provenance": "what records say of their making",
    "records": "what makes the records that chapters read",
    "run_folder": "how a training remembers where it was",
    "run_state": "how a training remembers where it was",
    "speaking": "how the building of a dataset shares out its work",
    "tables": "how tables of comma-separated values are read",
    "tiny_corpora": "random stand-ins for corpora",
    "vector_store": "how features are kept",
}

sys.path.insert(0, str(ROOT / "book" / "_ext"))
command_line = importlib.import_module("command_line")
docstrings = importlib.import_module("docstrings")
sys.path.pop(0)


def directives() -> Iterator[tuple[str, str, set[str], bool]]:
    """Kind and name of each of autodoc's directives, which members it leaves out, and whether it has any."""
    for text in PAGES.values():
        for kind, name, options in re.findall(r"^\.\. auto(\w+):: (\S+)\n((?: +:.*\n)*)", text, re.MULTILINE):
            left_out = re.search(r":exclude-members: (.*)", options)
            yield kind, name, set(re.split(r", *", left_out[1])) if left_out else set(), ":no-members:" not in options


def public(module: ModuleType) -> dict[str, Any]:
    """The functions and classes that a module offers: what its `__all__` names, or else what it defines itself."""
    names = getattr(module, "__all__", None)
    if names is not None:
        found = {name: getattr(module, name) for name in names}
    else:
        found = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    kinds = (inspect.isfunction, inspect.isclass)
    return {n: v for n, v in found.items() if not n.startswith("_") and any(kind(v) for kind in kinds)}


def described() -> dict[str, Any]:
    """All functions and classes on the pages, by the name under which they stand there."""
    first = [getattr(clasp_lib, name) for name in clasp_lib.__all__]  # with a page of their own
    found = {}
    for kind, name, left_out, members in directives():
        if kind == "module" and members:
            module = importlib.import_module(name)
            assert left_out <= set(public(module)), (
                f"{name}: leaves out {left_out - set(public(module))}, which is gone"
            )
            offered = {n: thing for n, thing in public(module).items() if n not in left_out}
            found |= {f"{name}.{n}": thing for n, thing in offered.items() if not any(thing is t for t in first)}
        elif kind != "module":
            module, _, last = name.rpartition(".")
            found[name] = getattr(importlib.import_module(module), last)
    return found


DESCRIBED = described()


def methods(thing: Any) -> dict[str, Any]:
    """The public methods and properties that a class defines itself."""
    if not inspect.isclass(thing):
        return {}
    found = {n: v for n, v in vars(thing).items() if not n.startswith("_")}
    return {n: v for n, v in found.items() if isinstance(v, property | classmethod | staticmethod) or callable(v)}


def test_the_names_of_the_library_itself_stand_on_the_first_page() -> None:
    named = re.findall(r"^\.\. auto\w+:: clasp_lib\.(\w+)$", PAGES["start"], re.MULTILINE)
    assert sorted(named) == sorted(clasp_lib.__all__)


def test_every_module_is_described_or_is_known_to_be_internal() -> None:
    named = {name.removeprefix("clasp_lib.") for kind, name, _, members in directives() if kind == "module" and members}
    modules = {module.name for module in pkgutil.iter_modules(clasp_lib.__path__)} - {"__main__"}
    assert named & set(INTERNAL) == set()
    assert modules - named - set(INTERNAL) == set(), "in no page of book/api"
    assert set(INTERNAL) <= modules, "internal, and gone"


def test_every_function_and_class_is_described_once() -> None:
    modules = [importlib.import_module(name) for kind, name, _, members in directives() if kind == "module" and members]
    wanted = {id(thing): f"{module.__name__}.{name}" for module in modules for name, thing in public(module).items()}
    found = Counter(map(id, DESCRIBED.values()))
    assert [name for key, name in wanted.items() if found[key] == 0] == []
    assert [name for name, thing in DESCRIBED.items() if found[id(thing)] > 1] == []


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_docstring_begins_with_a_sentence(name: str) -> None:
    thing = DESCRIBED[name]
    texts = {name: vars(thing)["__doc__"] if inspect.isclass(thing) else thing.__doc__}
    texts |= {f"{name}.{n}": inspect.getdoc(method) for n, method in methods(thing).items()}  # perhaps its base's
    for of, text in texts.items():
        assert text, f"{of} has no docstring"
        first = inspect.cleandoc(text).split("\n\n")[0]
        assert re.search(r"[.?!:]\W*$", first), f"{of}: begins with {first!r}, which does not end as a sentence"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = [name for name in parse_toc_yaml(ROOT / "_toc.yml") if name.startswith("book/api/")]
    assert listed[:2] == ["book/api/index", "book/api/start"]
    assert sorted(listed) == [f"book/api/{name}" for name in PAGES]


def test_every_command_has_its_part_in_the_order_of_the_help() -> None:
    text = PAGES["command_line"]
    assert re.findall(r"^```\{command\} (\w+)$", text, re.MULTILINE) == list(cli.COMMANDS)
    assert re.findall(r"^## `clasp (\w+)`$", text, re.MULTILINE) == list(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_page_of_a_command_is_its_parser(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser, module = command_line.parser_of(name)
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    options = {option for action in parser._actions for option in action.option_strings}
    assert options == set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", parser.format_usage())) | {"--help"}
    assert all(option in said for option in options)
    assert set(re.findall(r"(?<=\s)--[a-z-]+", parser.format_help())) <= set(re.findall(r"--[a-z-]+", said))
    assert " ".join(module.ABOUT.split())[:60] in " ".join(said.split())


class Reader(HTMLParser):
    """The anchors of a page, and what its code elements say."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.anchors |= {value for key, value in attributes if key == "id" and value}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def built() -> dict[str, Reader]:
    if not (HTML / "index.html").exists():
        absent("no built API reference in _build/html: run `make book`")
    pages = {}
    for name in PAGES:
        pages[name] = Reader()
        pages[name].feed((HTML / f"{name}.html").read_text(encoding="utf-8"))
    return pages


def test_every_name_can_be_linked_to(built: dict[str, Reader]) -> None:
    anchors = {anchor for page in built.values() for anchor in page.anchors}
    inside = {f"{name}.{n}" for name, thing in DESCRIBED.items() for n, m in methods(thing).items() if m.__doc__}
    missing = {name for name in {*DESCRIBED, *inside} if name not in anchors}
    assert missing == set()


def test_a_page_is_not_too_large(built: dict[str, Reader]) -> None:
    sizes = {name: (HTML / f"{name}.html").stat().st_size for name in PAGES}
    assert {name: size for name, size in sizes.items() if size > MAX_HTML_BYTES} == {}


def test_every_option_of_every_command_is_on_the_page(built: dict[str, Reader]) -> None:
    text = "".join(built["command_line"].text)
    for name in cli.COMMANDS:
        options = [option for action in command_line.parser_of(name)[0]._actions for option in action.option_strings]
        assert [option for option in options if option not in text] == [], name


def as_rst(text: str, *fields: str, module: str = "clasp_lib.losses", inside: str = "") -> str:
    importlib.import_module(module)
    return "\n".join(docstrings.as_rst(text.split("\n"), fields, module, inside)).strip()


def test_code_that_is_a_name_of_the_library_becomes_a_link() -> None:
    assert as_rst("See `SigmoidLoss`.") == "See :py:obj:`SigmoidLoss <clasp_lib.losses.SigmoidLoss>`."
    found = as_rst("As `clasp_lib.locate` and `forward` do.", inside="Loss")
    assert ":py:obj:`clasp_lib.locate <clasp_lib.localization.moments.locate>`" in found
    assert ":py:obj:`forward <clasp_lib.losses.Loss.forward>`" in found
    model = as_rst("A `CLASP` has it, and `WithTranscript`.", module="clasp_lib.localization.moments")
    assert "<clasp_lib.model.CLASP>" in model and "<clasp_lib.localization.transcript.WithTranscript>" in model
    constant = as_rst("One of `FUSIONS`.", module="clasp_lib.cli.train")
    assert constant == "One of :py:obj:`FUSIONS <clasp_lib.fusion.FUSIONS>`."


def test_other_code_stays_code() -> None:
    assert as_rst("With `k=5`, `torch.float16` and `no_such_name`.") == (
        "With ``k=5``, ``torch.float16`` and ``no_such_name``."
    )
    assert as_rst("Its `similarity`.", "similarity") == "Its ``similarity``."  # an argument of that name
    assert as_rst("All `n`s.") == "All ``n``\\ s."


def test_what_only_looks_like_markup_is_escaped() -> None:
    assert as_rst("Where |x| <= 2 * y, label_ is **one**.") == "Where \\|x\\| <= 2 \\* y, label\\_ is **one**."
    assert as_rst('Say "http://[user@]host".') == "Say ``http://[user@]host``."


def test_lists_get_the_empty_lines_that_they_need() -> None:
    assert as_rst("Two:\n- one,\n  goes on\n- two.\nAnd so on.") == "Two:\n\n- one,\n  goes on\n\n- two.\n\nAnd so on."


def test_indented_lines_are_code_in_their_language() -> None:
    assert as_rst("So:\n\n    a = 1\n\n    b = 2") == "So:\n\n.. code-block:: python\n\n    a = 1\n\n    b = 2"
    assert ".. code-block:: console" in as_rst("So:\n\n    clasp index --cut a b")
    assert ".. code-block:: text" in as_rst("So:\n\n    MRR = E[1 / (1 + X)")


def test_an_entry_for_several_fields_is_taken_apart() -> None:
    found = as_rst("It.\n\nArgs:\n    a: (n, d). b, c: (m,). d: no field.\n    b: more.", "a", "b", "c")
    assert found == "It.\n\nArgs:\n    a: (n, d).\n    b, c: (m,). d: no field.\n    b: more."


def test_what_is_returned_is_no_type() -> None:
    assert as_rst("It.\n\nReturns:\n    rows: a, b.\n\nRaises:\n    ClaspError: never.") == (
        "It.\n\n:returns: rows: a, b.\n\nRaises:\n    ClaspError: never."
    )
