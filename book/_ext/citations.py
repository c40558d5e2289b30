"""Bibliographies that screen readers can read: Sphinx's writer gives their entries roles that do not fit together.

docutils marks a list of citations as `role="list"`, and each of them as `doc-biblioentry`, which ARIA 1.2 no longer
counts among a list's items. Without both roles they are read as what they are: paragraphs with a label.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

ROLES = re.compile(r' ?role="(?:doc-biblioentry|list)" ?')


def without_roles(
    app: Sphinx, page: str, template: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Take the two roles off the citations of a page, and off nothing else."""
    body = context.get("body", "")
    if 'class="citation' in body:
        before, *citations = body.split("<div ")
        context["body"] = "<div ".join([before, *map(_plain, citations)])


def _plain(text: str) -> str:
    tag, closing, rest = text.partition(">")
    if "citation" in tag:
        tag = ROLES.sub(" ", tag).strip()
    return tag + closing + rest


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", without_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
