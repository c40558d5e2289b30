"""Start the demo: on this machine, in a notebook, behind a web server."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from clasp_lib.demo.limits import Limits
from clasp_lib.demo.texts import LANGUAGES
from clasp_lib.errors import ClaspError, MissingDependencyError

if TYPE_CHECKING:
    import gradio as gr

    from clasp_lib.index import SpeechIndex
    from clasp_lib.model import CLASP

NORMAL = Limits()
_HERE = ("127.0.0.1", "localhost", "::1")


def build_demo(
    model: CLASP, index: SpeechIndex | None = None, limits: Limits = NORMAL, language: str = "en"
) -> gr.Blocks:
    """The page, not yet served: give it to `gradio.mount_gradio_app` with the colours of `clasp_lib.demo.look.look()`.

    Args:
        model: encodes what visitors ask and bring.
        index: the collection to search; without one, the page only finds moments.
        limits: what a visitor may ask.
        language: of the interface at first, "en" or "fa"; visitors change it.

    Raises:
        ClaspError: a language that the interface does not speak, or an index of another model.
        MissingDependencyError: Gradio is not installed.
    """
    if language not in LANGUAGES.values():
        raise ClaspError(f"language {language!r}: the interface speaks {', '.join(LANGUAGES.values())}.")
    if index is not None and index.model.fingerprint != model.fingerprint:
        raise ClaspError("index: was built with another model. Load it with this one, or build it again.")
    _need_gradio()
    from clasp_lib.demo.app import build

    return build(model, index, limits, language)


def launch_demo(
    model: CLASP,
    index: SpeechIndex | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    limits: Limits = NORMAL,
    language: str = "en",
    open_browser: bool = False,
    block: bool | None = None,
) -> gr.Blocks:
    """Serve the page until it is interrupted; in a notebook, show it below the cell and go on.

    Args:
        model, index, limits, language: as for `build_demo`; without an index, the test clips of the profile are
            searched, which are indexed at the first start.
        host: "127.0.0.1" answers this machine only; "0.0.0.0" answers whoever reaches it.
        port: default: the first free one from 7860.
        share: ask gradio.live for a public address. It is never asked for otherwise, in Colab neither.
        open_browser: show the page in the web browser of this machine.
        block: return only when interrupted (Ctrl-C); default: outside notebooks.

    Returns:
        The page: `.local_url` is its address, `.close()` ends it.

    Raises:
        ClaspError: a port that is not free; otherwise as `build_demo`.
    """
    _need_gradio()
    from gradio.utils import colab_check, ipython_check
    from starlette.middleware import Middleware

    from clasp_lib.demo.collection import ready_made
    from clasp_lib.demo.look import look

    page = build_demo(model, ready_made(model) if index is None else index, limits, language)
    inside = colab_check() or ipython_check()
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=share,  # never None, with which Gradio shares in Colab
            inline=inside,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            height=900,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            max_file_size=limits.upload_bytes,
            app_kwargs={"middleware": [Middleware(NoErrands)]},
            **look(),
        )
    except (OSError, OverflowError) as error:  # the second for a port beyond 65535
        raise ClaspError(f"port {port}: cannot be used ({error}). Choose another, or leave it out.") from error
    if not inside:
        print(f"The demo is at {page.share_url or page.local_url} (Ctrl-C ends it)", flush=True)
        if host not in _HERE:
            print("Everyone who can reach this machine can use it.", file=sys.stderr, flush=True)
    if block if block is not None else not inside:
        try:
            while page.is_running:
                time.sleep(0.5)
        finally:
            page.close(verbose=False)
    return page


class NoErrands:
    """ASGI middleware: Gradio's file route also fetches web addresses for whoever asks. Here it does not."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "") if scope["type"] == "http" else ""
        if "://" in path or any(f"{route}=http" in path.lower() for route in ("file", "proxy")) or "/proxy=" in path:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"Not served."})
        else:
            await self._app(scope, receive, send)


def _need_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "the demo needs Gradio, which is not installed. Install the extra [demo]: pip install 'clasp-lib[demo]'."
        ) from error
