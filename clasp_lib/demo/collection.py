"""A collection that is there without asking: the test clips of the profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clasp_lib.index import SpeechIndex
from clasp_lib.profiles import Profile, get_profile

if TYPE_CHECKING:
    from clasp_lib.model import CLASP


def ready_made(model: CLASP, profile: Profile | None = None) -> SpeechIndex:
    """The profile's test clips as an index, made at the first call and read afterwards.

    The clips are written as files, so that the saved index knows where to find them.
    """
    profile = profile or get_profile()
    clips = profile.dataset()["test"]
    folder = profile.cache / "demo"
    sounds = folder / "clips"
    sounds.mkdir(parents=True, exist_ok=True)
    files = []
    for name, audio in zip(clips["id"], clips["audio"], strict=True):
        file = sounds / f"{name}{Path(audio['path'] or 'clip.wav').suffix}"
        if not file.is_file():
            part = file.with_suffix(".part")
            part.write_bytes(audio["bytes"])
            part.replace(file)
        files.append(file)
    columns = [column for column in ("category", "voice", "speaker", "language") if column in clips.column_names]
    return SpeechIndex.build(
        model,
        files,
        texts=list(clips["text"]),
        metadata=[dict(zip(columns, row, strict=True)) for row in zip(*(clips[c] for c in columns), strict=True)],
        ids=list(clips["id"]),
        folder=folder / f"index-{model.fingerprint[:16]}",
    )
