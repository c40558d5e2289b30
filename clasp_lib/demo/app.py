"""The page: a language, and two tabs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from clasp_lib.demo.desk import Desk
from clasp_lib.demo.limits import Limits
from clasp_lib.demo.tabs import moment_tab, search_tab, visitor
from clasp_lib.demo.texts import LANGUAGES, TEXTS, direction, say
from clasp_lib.demo.view import page_head
from clasp_lib.demo.words import Words

if TYPE_CHECKING:
    from clasp_lib.index import SpeechIndex
    from clasp_lib.model import CLASP

_SECONDS = 600  # uploads that nobody asked about are deleted after this time

_TURN = """(name) => {
  const [language, direction, title] = TABLE[name];
  Object.assign(document.documentElement, {lang: language, dir: direction});
  document.title = title;
}"""


def build(model: CLASP, index: SpeechIndex | None, limits: Limits, language: str) -> gr.Blocks:
    """See `clasp_lib.demo.build_demo`."""
    from gradio.utils import get_upload_folder

    desk = Desk(model, index, limits, Path(get_upload_folder()))
    with gr.Blocks(title=say(language, "title"), analytics_enabled=False, delete_cache=(_SECONDS, _SECONDS)) as page:
        words = Words(language)
        chosen = next(name for name, code in LANGUAGES.items() if code == language)
        tongue = gr.Radio([*LANGUAGES], value=chosen, show_label=False, container=False, elem_id="language")
        words(gr.HTML, lambda t: {"value": page_head(t)}, apply_default_css=False)
        answers = []
        with gr.Tabs():
            if index is not None:
                with words(gr.Tab, lambda t: {"label": say(t, "tab_search")}, id="search"):
                    answers.append(search_tab(desk, words, tongue))
            with words(gr.Tab, lambda t: {"label": say(t, "tab_moment")}, id="moment"):
                answers.append(moment_tab(desk, words, tongue))
        _speak(page, words, tongue)
        for result, show, inputs in answers:
            tongue.change(show, [tongue, *inputs], result, show_progress="hidden", api_visibility="private")

        def leave(request: gr.Request) -> None:
            desk.leave(visitor(request))

        page.unload(leave)
    page.queue(max_size=4 * (limits.jobs + limits.queue))
    return page


def _speak(page: gr.Blocks, words: Words, tongue: gr.Radio) -> None:
    """Another language: all words are said anew, and the page's direction turns."""
    table = {name: [code, direction(code), TEXTS[code]["title"]] for name, code in LANGUAGES.items()}
    turn = _TURN.replace("TABLE", json.dumps(table))

    def said_anew(name: str) -> list[Any]:
        return words.updates(LANGUAGES[name])

    tongue.change(said_anew, tongue, words.components, queue=False, show_progress="hidden", api_visibility="private")
    tongue.change(None, tongue, js=turn, api_visibility="private")
    page.load(None, tongue, js=turn, api_visibility="private")
