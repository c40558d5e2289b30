"""The reference of the command line, read from the parsers that `clasp` itself uses.

    ```{command} search
    ```

describes `clasp search`: its usage, what it does, its arguments by group, and examples.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WIDTH = 72


def parser_of(name: str) -> tuple[argparse.ArgumentParser, ModuleType]:
    """The arguments of `clasp NAME`, and the module that has them."""
    module = importlib.import_module(f"clasp_lib.cli.{name}")
    formatter: Any = functools.partial(argparse.HelpFormatter, width=WIDTH)
    parser = argparse.ArgumentParser(prog=f"clasp {name}", formatter_class=formatter)
    module.add_arguments(parser)
    return parser, module


def with_code(text: str) -> list[nodes.Node]:
    """Text in which backticks, and words that begin with --, are code."""
    parts = re.split(r"`([^`]+)`|(?<!\S)(--[a-z][a-z-]*)", text)
    texts, codes = parts[::3], [one or two for one, two in zip(parts[1::3], parts[2::3])]
    done: list[nodes.Node] = [nodes.Text(texts[0])]
    for code, after in zip(codes, texts[1:]):
        done += [nodes.literal("", code), nodes.Text(after)]
    return done


def paragraphs(text: str) -> list[nodes.Node]:
    """What a command does; indented lines are to be copied, and stay as they are."""
    done: list[nodes.Node] = []
    for paragraph in text.split("\n\n"):
        if "\n  " in paragraph:
            done.append(_console(paragraph))
        else:
            done.append(nodes.paragraph("", "", *with_code(" ".join(paragraph.split()))))
    return done


def _console(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="console")


def _invocation(action: argparse.Action) -> str:
    """How an argument is given: `-k N`, or the name of a positional one."""
    takes = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else None)
    if not action.option_strings:
        return str(takes or action.dest)
    takes = "" if action.nargs == 0 else str(takes or action.dest.upper())
    return f"{', '.join(action.option_strings)} {takes}{' ...' if action.nargs == '+' else ''}".strip()


def _arguments(actions: Sequence[argparse.Action], program: str) -> nodes.definition_list:
    items = []
    for action in actions:
        about = (action.help or "") % {**vars(action), "prog": program}
        term = nodes.term("", "", nodes.literal("", _invocation(action)))
        meaning = nodes.definition("", nodes.paragraph("", "", *with_code(about)))
        items.append(nodes.definition_list_item("", term, meaning))
    return nodes.definition_list("", *items)


class Command(SphinxDirective):
    """All that `clasp NAME --help` says."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        parser, module = parser_of(self.arguments[0])
        done = [_console(parser.format_usage().removeprefix("usage: ").rstrip()), *paragraphs(module.ABOUT)]
        for group in parser._action_groups:  # argparse has no public list of them
            actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
            if actions:
                done += [nodes.rubric("", str(group.title).capitalize()), _arguments(actions, parser.prog)]
        return [*done, nodes.rubric("", "Examples"), _console("\n".join(module.EXAMPLES))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("command", Command)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
