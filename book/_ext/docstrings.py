"""The API reference from the library's docstrings, as they are: Google's sections, and Markdown's backticks and lists.

`sphinx.ext.autodoc` reads the library and `sphinx.ext.napoleon` its sections. This extension prepares what both take
for granted: text that is reStructuredText, and annotations that can be evaluated. Code in backticks that is a name of
the library becomes a link to its description.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.ext import napoleon
from sphinx.ext.autodoc import DataDocumenter
from sphinx.util import inspect as inspection
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

LIBRARY = "clasp_lib"
PAGES = "book/api/"
SETTINGS: dict[str, Any] = {
    "add_module_names": False,
    "autodoc_class_signature": "mixed",
    "autodoc_default_options": {"members": True},
    "autodoc_inherit_docstrings": False,  # a method that only fills in what its base describes is not shown again
    "autodoc_member_order": "bysource",
    "autodoc_preserve_defaults": True,
    "autodoc_typehints_format": "short",
    "maximum_signature_line_length": 88,  # longer ones get a line for each argument
    "python_use_unqualified_type_names": True,
}
# Packages whose types occur in signatures and which this book, built without a network, has no inventory of.
FOREIGN = (
    *("collections", "ctypes", "datasets", "gr", "huggingface_hub", "matplotlib", "mteb", "numpy", "pandas", "pathlib"),
    *("sentence_transformers", "torch"),
)
# Nobody imports these: recipes and records of this project, and the inner life of the demo and the command line.
INTERNAL = ("cli", "demo", "paper_tiny", "pretraining", "records")
SECTIONS: Any = napoleon.Config(
    napoleon_use_param=False, napoleon_use_rtype=False, napoleon_custom_sections=[("Attributes", "params_style")]
)
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):\s*$")
_LONGEST_VALUE = 60


def as_rst(lines: Sequence[str], fields: Sequence[str] = (), module: str = LIBRARY, inside: str = "") -> list[str]:
    """A docstring of the library as reStructuredText, its sections left to napoleon.

    Args:
        fields: names of arguments and attributes: an entry of a section that describes several becomes several.
        module, inside: where names in backticks are looked up; `inside` is a class of the module.
    """
    done: list[str] = []
    kind = "text"
    for paragraph in _paragraphs(lines):
        head = [paragraph.pop(0)] if _SECTION.match(paragraph[0]) else []
        if head:
            kind = "section"
        elif not paragraph[0].startswith("    "):
            kind = "text"
        elif kind == "text":
            kind = "code"
            done += [f".. code-block:: {_language(paragraph)}", ""]
        if head and head[0].startswith("Returns:"):  # napoleon would take what is before a colon for the type
            head, paragraph[0] = [], f":returns: {paragraph[0].strip()}"
        if kind == "section":
            paragraph = _inline("\n".join(_apart(paragraph, fields)), fields, module, inside).split("\n")
        elif kind == "text":
            paragraph = _lists(_inline("\n".join(paragraph), fields, module, inside).split("\n"))
        done += [*head, *paragraph, ""]
    return done


def _paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Runs of lines that are not empty; a section begins a new one."""
    run: list[str] = []
    for line in [*lines, ""]:
        if run and (not line.strip() or _SECTION.match(line)):
            yield run
            run = []
        if line.strip():
            run.append(line)


def _apart(lines: Sequence[str], fields: Sequence[str]) -> list[str]:
    """`speech: (n, d). text: (m, d).` describes two fields in one entry: each gets an entry."""
    if not fields:
        return list(lines)
    name = "|".join(map(re.escape, fields))
    further = re.compile(rf"(?<=[.?!;]) +(?=(?:{name})(?:, (?:{name}))*: )")
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    return [part if i == 0 else " " * indent + part for line in lines for i, part in enumerate(further.split(line))]


def _language(lines: Sequence[str]) -> str:
    if lines[0].split()[0] in ("clasp", "python", "torchrun"):
        return "console"
    try:
        ast.parse(inspect.cleandoc("\n" + "\n".join(lines)))
    except SyntaxError:
        return "text"
    return "python"


def _lists(lines: Sequence[str]) -> list[str]:
    """Markdown's lists need no empty line before an item, and none after the last."""
    done: list[str] = []
    inside = False
    for line in lines:
        starts = line.lstrip().startswith("- ")
        if done and (starts or (inside and not line.startswith(" "))):
            done.append("")
        inside = starts or (inside and line.startswith(" "))
        done.append(line)
    return done


def _inline(text: str, fields: Sequence[str], module: str, inside: str) -> str:
    """Backticks become links or literals; all else that reStructuredText would read as markup is escaped."""
    done = []
    parts = re.split(r"`([^`]+)`", text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            plain = part.replace("\\", "\\\\").replace("|", "\\|")
            plain = re.sub(r"(?<=\w)_(?!\w)", r"\\_", plain)
            plain = re.sub(r"\*\*(\w[^*]*)\*\*|\*", lambda m: m[0] if m[1] else "\\*", plain)
            done.append(re.sub(r'"(\w+://[^"]*)"', r"``\1``", plain))  # an address that is an example, and no link
            continue
        code = " ".join(part.split())
        target = None if code in fields else target_of(code, module, inside)
        left = "\\ " if re.search(r"\w$", parts[i - 1]) else ""
        right = "\\ " if re.match(r"\w", parts[i + 1]) else ""
        done.append(left + (f":py:obj:`{code} <{target}>`" if target else f"``{code}``") + right)
    return "".join(done)


@cache
def target_of(code: str, module: str, inside: str = "") -> str | None:
    """The full name of a function, class, method or module of the library that is called `code` at a certain place."""
    if not re.fullmatch(r"[A-Za-z]\w*(\.\w+)*", code):
        return None
    if code.startswith(f"{LIBRARY}."):
        found = _find(sys.modules[LIBRARY], code.removeprefix(f"{LIBRARY}."))
    else:
        here, package = sys.modules[module], sys.modules[module.rpartition(".")[0] or LIBRARY]
        found = (inside and _find(here, f"{inside}.{code}")) or _find(here, code) or _find(package, code)
        found = found or _find(sys.modules[LIBRARY], code)
    return found or None


def _find(place: Any, path: str) -> str | None:
    """Where the thing at the end of a path of attributes is described."""
    thing = place
    for name in path.split("."):
        before, thing = thing, getattr(thing, name, None)
        if thing is None and isinstance(before, ModuleType):
            with_name = f"{before.__name__}.{name}"
            if with_name in sys.modules:
                thing = sys.modules[with_name]
        if thing is None:
            return None
    constant = path.rpartition(".")[2]
    if (name_of_thing := canonical_name(thing)) or not (constant.isupper() and isinstance(before, ModuleType)):
        return name_of_thing
    return next((f"{place}.{constant}" for place in _assigning(constant) if _is(place, constant, thing)), None)


@cache
def _assigning(constant: str) -> list[str]:
    """The modules of the library that give a constant its value, and do not only import it."""
    line = re.compile(rf"^{constant}\b.*=", re.MULTILINE)
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{LIBRARY}.")]
    return [module.__name__ for module in modules if line.search(inspect.getsource(module))]


def _is(module: str, name: str, thing: Any) -> bool:
    return vars(sys.modules[module]).get(name) is thing


def canonical_name(thing: Any) -> str | None:
    """`module.qualified_name` of something that the library defines."""
    if isinstance(thing, ModuleType):
        return thing.__name__ if thing.__name__.startswith(f"{LIBRARY}.") else None
    if isinstance(thing, property):
        thing = thing.fget
    thing = inspect.unwrap(thing) if callable(thing) else thing
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not module.startswith(f"{LIBRARY}."):
        return None
    return None if "<" in name else f"{module}.{name}"


def _convert(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    module, _, inside = (canonical_name(thing) or name).partition("\0")
    while module not in sys.modules:
        module, _, last = module.rpartition(".")
        inside = f"{last}.{inside}" if inside else last
    inside = inside if what in ("class", "exception") else inside.rpartition(".")[0]
    if defined := canonical_name(thing):
        _names(app.env)[defined] = name
    text = as_rst(lines, _fields_of(thing), module, inside)
    kind = what if what in ("module", "class", "exception") else "function"  # of others, "type: text" is expected
    lines[:] = napoleon.GoogleDocstring(text, SECTIONS, app, kind, name, thing, options).lines()
    if what in ("class", "exception") and (bases := _bases(thing)):
        lines[:0] = [f"Bases: {', '.join(bases)}", ""]
    if what == "data" and isinstance(thing, Mapping) and all(isinstance(key, str) for key in thing):
        lines += ["Names: " + ", ".join(f"``{key}``" for key in thing) + "."]


def _fields_of(thing: Any) -> tuple[str, ...]:
    try:
        arguments = tuple(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        arguments = ()
    return arguments + tuple(getattr(thing, "__annotations__", ()))


def _bases(thing: type) -> list[str]:
    """What a class is made from, as far as that is public."""
    done = []
    for base in getattr(thing, "__orig_bases__", thing.__bases__):
        name, target = getattr(base, "__name__", str(base)), canonical_name(base)
        if not name.startswith("_") and name not in ("object", "Protocol"):
            done.append(f":py:obj:`{name} <{target}>`" if target else f"``{name}``")
    return done


def _skip(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """The library's own names have the first page; a named tuple's fields stand in its signature and docstring."""
    library = sys.modules[LIBRARY]
    first = what == "module" and any(thing is getattr(library, name) for name in library.__all__)
    return True if first or type(thing).__name__ == "_tuplegetter" else None


def _signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """What a class is built from, where a base from elsewhere hides it; no notation that is not Python."""
    if what in ("class", "exception") and not hasattr(thing, "_fields"):  # a named tuple has no other than its own
        begin = thing.__init__
        if not getattr(begin, "__module__", "").startswith(f"{LIBRARY}."):
            return "", result
        if signature and "*args" in signature:
            app.emit("autodoc-before-process-signature", begin, True)
            own = inspection.signature(begin, bound_method=True)
            signature = stringify_signature(own, show_return_annotation=False, unqualified_typehints=True)
    return signature and signature.replace("<factory>", "..."), result  # what a dataclass makes anew for each object


class ShortValue(DataDocumenter):
    """A constant; its value is shown if it is short."""

    priority = DataDocumenter.priority + 1

    def should_suppress_value_header(self) -> bool:
        return super().should_suppress_value_header() or len(repr(self.object)) > _LONGEST_VALUE


def prepare(app: Sphinx, env: BuildEnvironment, docnames: Sequence[str]) -> None:
    """Make annotations such as `list[Features]` evaluate, wherever `Features` is imported for type checkers only."""
    if not any(name.startswith(PAGES) for name in docnames):
        return
    library = importlib.import_module(LIBRARY)
    names = [module.name for module in pkgutil.walk_packages(library.__path__, f"{LIBRARY}.", onerror=None)]
    public = [name for name in names if name.split(".")[1] not in INTERNAL and not name.endswith("__main__")]
    modules = [importlib.import_module(name) for name in public]
    for module in modules:
        _import_for_types(module)
    for module in modules:
        _evaluate_aliases(module, modules)
    for module in modules:
        for thing in vars(module).values():
            if inspect.isclass(thing) and thing.__module__ == module.__name__ and hasattr(thing, "_field_defaults"):
                thing.__new__.__annotations__ = typing.get_type_hints(thing)  # those of a named tuple know no module


def _import_for_types(module: ModuleType) -> None:
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), str(module.__file__), "exec"), vars(module))


def _evaluate_aliases(module: ModuleType, modules: Sequence[ModuleType]) -> None:
    """An alias that names types as a string does so in its own module; where it is imported, they are not known."""
    for name, kind in getattr(module, "__annotations__", {}).items():
        if kind == "TypeAlias":
            alias = getattr(module, name)
            holder = type("Holder", (), {"__annotations__": {"alias": alias}})
            evaluated = typing.get_type_hints(holder, vars(module))["alias"]
            for other in modules:
                if vars(other).get(name) == alias:
                    setattr(other, name, evaluated)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Find a thing by the name under which it was defined, wherever it is described: a package shows its parts'."""
    if node.get("refdomain") != "py":
        return None
    names, described = _names(env), env.domains["py"].data["objects"]
    for target in (node["reftarget"], f"{node.get('py:module')}.{node['reftarget']}"):
        if entry := described.get(names.get(target, target)):
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, target)
    from_docstring = node.get("reftype") == "obj" and node["refdoc"].startswith(PAGES)
    return content if from_docstring else None  # a name of the library that is described nowhere stays code


def _names(env: BuildEnvironment) -> dict[str, str]:
    """By the name under which a thing was defined the one under which it is described; kept with the pages."""
    if not hasattr(env, "names_of_the_library"):
        env.names_of_the_library = {}  # type: ignore[attr-defined]
    return env.names_of_the_library  # type: ignore[attr-defined]


def _merge(app: Sphinx, env: BuildEnvironment, docnames: Sequence[str], other: BuildEnvironment) -> None:
    _names(env).update(_names(other))


def _layout_role(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The lines of a long signature are a list of definitions to HTML, but to nobody who hears the page read."""
    if pagename.startswith(PAGES):
        body = context.get("body", "")
        context["body"] = re.sub(r'<dl>(?=\s*<dd>(?:<em class="sig-param|<span class="sig-))', '<dl role="none">', body)


def configure(app: Sphinx, config: Config) -> None:
    for name, value in SETTINGS.items():
        config[name] = value
    ours = [(r"py:.*", rf"({'|'.join(FOREIGN)})\..*")]
    config.nitpick_ignore_regex = [*config.nitpick_ignore_regex, *ours]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("config-inited", configure, priority=100)
    app.connect("env-before-read-docs", prepare)
    app.connect("autodoc-process-docstring", _convert)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("env-merge-info", _merge)
    app.connect("missing-reference", resolve)
    app.connect("html-page-context", _layout_role)
    app.add_autodocumenter(ShortValue, override=True)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
