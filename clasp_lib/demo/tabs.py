"""The two tabs: what they are made of, and what happens when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import gradio as gr

from clasp_lib.demo.desk import Desk
from clasp_lib.demo.limits import Refused
from clasp_lib.demo.look import packaged
from clasp_lib.demo.texts import LANGUAGES, TEXTS, say
from clasp_lib.demo.view import hits_view, moments_view, notice, source_view
from clasp_lib.demo.words import Words
from clasp_lib.errors import ClaspError
from clasp_lib.index import Hit

Answer: TypeAlias = tuple[Any, Callable[..., str], list[Any]]
"""Where an answer stands, what writes it in a language, and what that needs beside the language."""

_SOURCE: dict[str, Any] = {"js_on_load": packaged("source.js"), "apply_default_css": False}
_RESULT: dict[str, Any] = {"js_on_load": packaged("wave.js"), "apply_default_css": False, "min_height": 120}


def search_tab(desk: Desk, words: Words, tongue: gr.Radio) -> Answer:
    """Search the collection by text or by voice, perhaps within some categories."""
    limits, filters, known = desk.limits, desk.filters(), len(desk.index or ())
    query, button = _query(desk, words, "search")
    spoken = words(
        gr.HTML, lambda t: {"value": source_view(t, limits, limits.spoken_query_seconds, "spoken")}, **_SOURCE
    )
    boxes = []
    with gr.Row():
        k = _how_many(desk, words, 5, "search")
        for column, values in filters.items():

            def named(t: str, column: str = column) -> dict[str, str]:
                return {"label": TEXTS[t].get(f"column_{column}", column)}

            boxes.append(words(gr.Dropdown, named, choices=values, multiselect=True, value=[], min_width=180))
    found = gr.State(None)
    result = gr.HTML(
        notice(words.language, say(words.language, "empty_search", n=known)), elem_id="search-result", **_RESULT
    )

    def show(name: str, hits: list[Hit] | None) -> str:
        language = LANGUAGES[name]
        if not hits:
            return notice(
                language, say(language, "empty_search", n=known) if hits is None else say(language, "nothing")
            )
        return hits_view(language, hits)

    def answered(name: str, ask: Callable[..., list[Hit]], *asked: Any) -> tuple[str, list[Hit] | None]:
        try:
            hits = ask(*asked)
        except ClaspError as error:
            return refusal(LANGUAGES[name], error), None
        return show(name, hits), hits

    def written(name: str, text: str, k: float, *values: list[str]) -> tuple[str, list[Hit] | None]:
        return answered(name, desk.search, text, k, dict(zip(filters, values, strict=True)))

    def heard(event: gr.EventData, name: str, k: float, *values: list[str]) -> tuple[str, list[Hit] | None]:
        return answered(name, desk.search_by_speech, _upload(event)[0], k, dict(zip(filters, values, strict=True)))

    gr.on([button.click, query.submit], written, [tongue, query, k, *boxes], [result, found], **_work(desk))
    spoken.upload(heard, [tongue, k, *boxes], [result, found], **_work(desk))
    return result, show, [found]


def moment_tab(desk: Desk, words: Words, tongue: gr.Radio) -> Answer:
    """Take a long recording, and find in it what is asked for; the recording is encoded once."""
    limits = desk.limits
    longest = 60 * limits.recording_minutes
    source = words(gr.HTML, lambda t: {"value": source_view(t, limits, longest, "recording")}, **_SOURCE)
    query, button = _query(desk, words, "moment")
    k = _how_many(desk, words, 3, "moment")
    result = gr.HTML(notice(words.language, say(words.language, "empty_moment")), elem_id="moment-result", **_RESULT)

    def show(name: str, request: gr.Request) -> str:
        language, recording = LANGUAGES[name], desk.visitors.get(visitor(request))
        return (
            notice(language, say(language, "empty_moment")) if recording is None else moments_view(language, recording)
        )

    def find(name: str, text: str, k: float, request: gr.Request) -> str:
        try:
            if not desk.find(visitor(request), text, k).moments:
                raise Refused("no_moment")
            return show(name, request)
        except ClaspError as error:
            refused = refusal(LANGUAGES[name], error)
            return refused if desk.visitors.get(visitor(request)) is None else refused + show(name, request)

    def take(event: gr.EventData, name: str, text: str, k: float, request: gr.Request) -> str:
        try:
            desk.take(visitor(request), *_upload(event))
        except ClaspError as error:
            return refusal(LANGUAGES[name], error)
        return find(name, text, k, request) if text.strip() else show(name, request)

    gr.on([button.click, query.submit], find, [tongue, query, k], result, **_work(desk))
    source.upload(take, [tongue, query, k], result, **_work(desk))
    return result, show, []


def refusal(language: str, error: ClaspError) -> str:
    """An error as a sentence in the visitor's language; what the library itself says is in English."""
    text = error.text(language) if isinstance(error, Refused) else say(language, "failed", why=error)
    return notice(language, text, "refused")


def visitor(request: gr.Request) -> str:
    """The key of this visit: made at random by the page when it opens."""
    return request.session_hash or ""


def _upload(event: gr.EventData) -> tuple[str, str]:
    """What the browser says that it uploaded, and its name; `Desk` believes neither."""
    data = event._data if isinstance(event._data, dict) else {}
    return str(data.get("path", "")), str(data.get("name", ""))


def _work(desk: Desk) -> dict[str, Any]:
    """How functions that need the model are called. The desk's own door sends people away, in their language."""
    most = desk.limits.jobs + desk.limits.queue + 1
    return {"concurrency_limit": most, "concurrency_id": "model", "api_visibility": "private"}


def _query(desk: Desk, words: Words, tab: str) -> tuple[Any, Any]:
    def said(t: str) -> dict[str, str]:
        return {"label": say(t, f"{tab}_query"), "placeholder": say(t, "query_hint")}

    most = desk.limits.query_characters
    with gr.Row(elem_classes="clasp-ask"):
        query = words(gr.Textbox, said, max_lines=3, max_length=most, elem_id=f"{tab}-query", scale=5, min_width=260)
        button = words(
            gr.Button, lambda t: {"value": say(t, tab)},
            variant="primary", elem_id=f"{tab}-button", scale=1, min_width=110,
        )  # fmt: skip
    return query, button


def _how_many(desk: Desk, words: Words, default: int, tab: str) -> Any:
    return words(
        gr.Slider, lambda t: {"label": say(t, "hits")},
        minimum=1, maximum=desk.limits.hits, step=1, value=min(default, desk.limits.hits),
        min_width=220, elem_id=f"{tab}-hits", buttons=[],
    )  # fmt: skip
