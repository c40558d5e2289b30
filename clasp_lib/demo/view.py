"""The demo's own pieces of HTML. File names, texts and metadata come from strangers: all of it is escaped here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from clasp_lib.demo.limits import Limits
from clasp_lib.demo.recordings import Recording
from clasp_lib.demo.texts import clock, direction, number, say
from clasp_lib.errors import AudioError
from clasp_lib.index import Hit
from clasp_lib.localization import Moment
from clasp_lib.players import Player

_BARS = 360


def page_head(language: str) -> str:
    """Title and one line below it."""
    return (
        f'<header class="clasp-head" dir="{direction(language)}"><h1>{say(language, "title")}</h1>'
        f"<p>{say(language, 'about')}</p></header>"
    )


def notice(language: str, text: str, kind: str = "empty") -> str:
    """A sentence in place of a result; `kind` "refused" is spoken by screen readers at once."""
    role = "alert" if kind == "refused" else "status"
    return f'<p class="clasp-notice clasp-{kind}" role="{role}" dir="{direction(language)}">{escape(text)}</p>'


def hits_view(language: str, hits: Sequence[Hit]) -> str:
    """The answers of a search, each with a player of its stretch; nothing of the disk but that sound leaves."""
    cards = "".join(f"<li class='clasp-card'>{_card(language, hit)}</li>" for hit in hits)
    return (
        f'<section class="clasp-results" dir="{direction(language)}"><h2>{say(language, "hits_title")}</h2>'
        f'<ol class="clasp-hits">{cards}</ol></section>'
    )


def _card(language: str, hit: Hit) -> str:
    name = Path(hit.file).name
    known = [_from_to(language, hit)] if hit.start_s > 0 else []
    known += [escape(number(language, value)) for value in hit.metadata.values()]
    chips = "".join(f'<bdi class="clasp-chip">{text}</bdi>' for text in known)
    return (
        f'<div class="clasp-line"><span class="clasp-score" title="{say(language, "score")}">'
        f"{number(language, f'{hit.score:.2f}')}</span>"
        f'<span class="clasp-text" dir="auto">{escape(hit.text or name)}</span></div>'
        f'{_player(language, hit, name)}<div class="clasp-chips">{chips}</div>'
    )


def _player(language: str, hit: Hit, name: str) -> str:
    try:
        audio = hit.file if hit.audio is None else hit.audio
        player = Player(audio, hit.text or name, hit.start_s, hit.end_s).html
        return player.replace('preload="none"', 'preload="metadata"')  # it is in the page already: show how long it is
    except AudioError:  # moved or changed since it was indexed
        return f'<span class="clasp-known">{say(language, "no_sound")}</span>'


def moments_view(language: str, recording: Recording) -> str:
    """The waveform of a recording with its moments marked, a player, and the moments as a list.

    The interface may run from right to left; time in the waveform always runs from left to right, as in every player.
    """
    marks = "".join(_mark(language, rank, moment, recording) for rank, moment in enumerate(recording.moments, 1))
    rows = "".join(f"<li>{_row(language, rank, moment)}</li>" for rank, moment in enumerate(recording.moments, 1))
    listed = f'<h2>{say(language, "moments_title")}</h2><ol class="clasp-moments">{rows}</ol>' if rows else ""
    name = escape(recording.name)
    label = say(language, "waveform", name=recording.name)
    source = f"gradio_api/file={quote(str(recording.file))}"
    ticks = "".join(
        f'<span style="left:{100 * second / recording.seconds:.2f}%">{number(language, clock(second))}</span>'
        for second in _ticks(recording.seconds)
    )
    return (
        f'<section class="clasp-results" dir="{direction(language)}">'
        f'<div class="clasp-wave" dir="ltr" data-seconds="{recording.seconds:.3f}">'
        f'<svg viewBox="0 0 {_BARS} 100" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'<path d="{_bars(recording.peaks)}"/></svg>{marks}<i class="clasp-head-of-play"></i></div>'
        f'<div class="clasp-ticks" dir="ltr" aria-hidden="true">{ticks}</div>'
        f'<audio controls preload="metadata" aria-label="{name}" src="{escape(source)}"></audio>'
        f"{listed}</section>"
    )


def _mark(language: str, rank: int, moment: Moment, recording: Recording) -> str:
    left, width = 100 * moment.start_s / recording.seconds, 100 * (moment.end_s - moment.start_s) / recording.seconds
    return (
        f'<button type="button" class="clasp-mark" style="left:{left:.3f}%;width:{width:.3f}%" '
        f'{_times(moment)} aria-label="{_label(language, rank, moment)}"><b>{number(language, rank)}</b></button>'
    )


def _row(language: str, rank: int, moment: Moment) -> str:
    return (
        f'<button type="button" class="clasp-row" {_times(moment)} aria-label="{_label(language, rank, moment)}">'
        f'<b>{number(language, rank)}</b><bdi dir="ltr">{_from_to(language, moment)}</bdi>'
        f'<span class="clasp-score">{number(language, f"{moment.score:.2f}")}</span>'
        f"<em>{say(language, 'play')}</em></button>"
    )


def _from_to(language: str, part: Moment | Hit) -> str:
    return f"{number(language, clock(part.start_s, 1))} – {number(language, clock(part.end_s, 1))}"


def _times(moment: Moment) -> str:
    return f'data-start="{moment.start_s:.3f}" data-end="{moment.end_s:.3f}"'


def _label(language: str, rank: int, moment: Moment) -> str:
    start, end = clock(moment.start_s), clock(moment.end_s)
    return say(language, "moment_label", rank=rank, start=start, end=end, score=f"{moment.score:.2f}")


def _bars(peaks: np.ndarray) -> str:
    """One upright stroke for each part of the recording, as high as its loudest sample."""
    edges = np.linspace(0, len(peaks), min(_BARS, len(peaks)) + 1).astype(int)
    heights = np.array([peaks[a:b].max() for a, b in itertools.pairwise(edges)])  # (bars,)
    heights = np.maximum(1.5, 46 * heights / max(float(heights.max()), 1e-6))
    step = _BARS / len(heights)
    return "".join(f"M{(i + 0.5) * step:.1f} {50 - h:.1f}V{50 + h:.1f}" for i, h in enumerate(heights))


def _ticks(seconds: float) -> list[int]:
    """Round times for the axis, at most six."""
    step = next(step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 36000) if seconds / step <= 6)
    return list(range(0, int(seconds) + 1, step))


def source_view(language: str, limits: Limits, seconds: float, title: str) -> str:
    """Where a recording comes from: a file or the microphone. `source.js` works it.

    Args:
        seconds: after which the microphone stops by itself. title: "spoken" or "recording".
    """
    said = {name: say(language, name) for name in ("record", "stop", "uploading", "no_microphone", "not_uploaded")}
    said["too_large"] = say(language, "too_large", most=limits.upload_mb)
    data = "".join(f' data-{name.replace("_", "-")}="{escape(text)}"' for name, text in said.items())
    privacy = say(language, f"{title}_privacy", minutes=limits.recording_minutes, mb=limits.upload_mb)
    return (
        f'<div class="clasp-source clasp-{title}" dir="{direction(language)}" data-bytes="{limits.upload_bytes}" '
        f'data-seconds="{seconds:g}"{data}><b>{say(language, title)}</b>'
        f'<label class="clasp-drop"><input type="file" accept="audio/*,.opus,.flac">'
        f"<span>{say(language, f'{title}_drop')}</span></label>"
        f'<button type="button" class="clasp-record">{said["record"]}</button>'
        f'<span class="clasp-status" role="status"></span>'
        f'<small class="clasp-known">{privacy}</small></div>'
    )
