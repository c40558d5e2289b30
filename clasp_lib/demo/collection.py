"""A collection that is there without asking: the test clips of the profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clasp_lib.folders import write_whole
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
    files = []
    for name, audio in zip(clips["id"], clips["audio"], strict=True):
        file = folder / "clips" / f"{name}{Path(audio['path']).suffix}"
        if not file.is_file():
            write_whole(file, audio["bytes"])
        files.append(file)
    columns = ("category", "voice")
    return SpeechIndex.build(
        model,
        files,
        texts=list(clips["text"]),
        metadata=[dict(zip(columns, row, strict=True)) for row in zip(*(clips[c] for c in columns), strict=True)],
        ids=list(clips["id"]),
        folder=folder / f"index-{model.fingerprint[:16]}",
    )
