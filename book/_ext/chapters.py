"""What the build knows of a chapter, where readers look for it: a line below its title, and the map of all chapters.

The map is a directive whose body is YAML, one entry a chapter: what the reader leaves with, and which published
networks the chapter loads in the profile `paper` (all three, if it does not say):

    ```{chapter-map}
    notebooks/05_text_encoders: {outcome: what can be asked, loads: [text]}
    ```

Times come from the execution whose outputs the pages show, sizes from the configurations of the networks, links from
`_config.yml`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = "notebooks/"
STATIC = ROOT / "_build" / "static"
"""What the steps before Sphinx wrote for the pages: it becomes part of the book's `_static`."""
NETWORKS = ("speech", "picture", "text")
BYTES_A_WEIGHT = 4


class Facts(nodes.General, nodes.Element):
    """Holds the place below a chapter's title until its execution time is known."""


class Map(nodes.General, nodes.Element):
    """Holds the place of the map until all execution times are known."""


class ChapterMap(SphinxDirective):
    """The table of all chapters; its body has to name each of them once, in their order."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        entries = yaml.safe_load("\n".join(self.content))
        chapters = [name for name in self.config.external_site_map if name.startswith(CHAPTERS)]
        if list(entries) != chapters:
            wrong = sorted(set(entries) ^ set(chapters)) or "their order"
            raise self.error(f"chapter-map and _toc.yml differ in {wrong}")
        unknown = {part for entry in entries.values() for part in entry.get("loads", ())} - set(NETWORKS)
        if unknown:
            raise self.error(f"chapter-map: {sorted(unknown)}; a chapter loads some of {', '.join(NETWORKS)}")
        return [Map(entries=entries)]


def clock(seconds: float | None) -> str:
    """A time as people say it; `-` if the page was not executed."""
    if seconds is None:
        return "-"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def cores() -> int:
    """The CPU cores that a chapter may use here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def colab_address(config: Config, docname: str) -> str:
    """Where Colab opens a chapter: follows `repository` of `_config.yml`."""
    options = config.html_theme_options
    slug = options["repository_url"].removeprefix("https://github.com/").rstrip("/")
    return f"{options['launch_buttons']['colab_url']}/github/{slug}/blob/{options['repository_branch']}/{docname}.ipynb"


def seconds_of(env: BuildEnvironment, docname: str) -> float | None:
    """How long the outputs of a page took to make."""
    executed = NbMetadataCollector.get_exec_data(env, docname)  # type: ignore[arg-type]
    return executed["runtime"] if executed else None


def sentence(*parts: str | nodes.Node) -> nodes.paragraph:
    """Text and nodes in one paragraph."""
    paragraph = nodes.paragraph()
    paragraph.extend(nodes.Text(part) if isinstance(part, str) else part for part in parts)
    return paragraph


def link(text: str, address: str) -> nodes.reference:
    """A link to an address that Sphinx does not know."""
    return nodes.reference("", text, refuri=address)


def table(head: Sequence[str], rows: Sequence[Sequence[str | nodes.Node]]) -> nodes.table:
    """A table whose cells hold text or nodes."""
    group = nodes.tgroup(cols=len(head))
    group.extend(nodes.colspec(colwidth=1) for _ in head)
    parts = (nodes.thead(), nodes.tbody())
    for part, lines in zip(parts, ([head], rows), strict=True):
        for line in lines:
            row = nodes.row()
            row.extend(nodes.entry("", sentence(cell)) for cell in line)
            part += row
    group.extend(parts)
    return nodes.table("", group, classes=["colwidths-auto"])


class PutFacts(SphinxPostTransform):
    """Write what is known once every page was read."""

    default_priority = 8  # before references are resolved

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(Facts)):
            node.replace_self(self.facts(self.env.docname))
        for node in list(self.document.findall(Map)):
            node.replace_self(self.map(node["entries"]))

    def facts(self, docname: str) -> nodes.Node:
        """The line below a title."""
        from clasp_lib import get_profile

        parts: list[str | nodes.Node] = []
        if (seconds := seconds_of(self.env, docname)) is not None:
            profile = get_profile()
            fetched = ", with no download" if profile.offline else ""
            parts += [f"Ran in {clock(seconds)} on {cores()} CPU cores, in the profile {profile.name}{fetched}. "]
        parts.append(link("Open in Colab", colab_address(self.config, docname)))
        name = docname.removeprefix(CHAPTERS) + ".ipynb"
        if (STATIC / "retelling" / name).exists():
            up = "../" * docname.count("/")
            parts += [". ", link("Retelling version", f"{up}_static/retelling/{name}"), ": its code and headings alone"]
        line = sentence(*parts, ".")
        line["classes"] += ["clasp-facts"]
        return line

    def map(self, entries: Mapping[str, Mapping[str, Any]]) -> nodes.Node:
        """The table of chapters."""
        from clasp_lib.plan import published_networks

        sizes = {part: published_networks()[part].parameters * BYTES_A_WEIGHT for part in NETWORKS}
        rows: list[list[str | nodes.Node]] = []
        for name, entry in entries.items():
            title = pending_xref(
                "",
                nodes.inline("", self.env.titles[name].astext()),
                refdomain="std",
                reftype="doc",
                reftarget=f"/{name}",
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
            size = sum(sizes[part] for part in entry.get("loads", NETWORKS))
            paper = f"GPU, {size / 1e9:.1f} GB" if size else "CPU, nothing"
            rows.append([title, entry["outcome"], clock(seconds_of(self.env, name)), paper])
        head = ["Chapter", "You leave with", f"Time on {cores()} CPU cores", "With the published encoders: download"]
        return table(head, rows)


def add_facts(app: Sphinx, document: nodes.document) -> None:
    """Put the place holder below the title of a chapter."""
    if app.env.docname.startswith(CHAPTERS):
        title = next(iter(document.findall(nodes.title)))
        title.parent.insert(title.parent.index(title) + 1, Facts())


def add_static(_: Sphinx, config: Config) -> None:
    """Carry what the steps before Sphinx wrote, if they ran."""
    if STATIC.exists():
        config.html_static_path = [*config.html_static_path, str(STATIC)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    for node in (Facts, Map):
        app.add_node(node)
    app.add_directive("chapter-map", ChapterMap)
    app.connect("config-inited", add_static)
    app.connect("doctree-read", add_facts)
    app.add_post_transform(PutFacts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
