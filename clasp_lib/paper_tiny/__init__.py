"""Tiny checkpoints with random weights, in the layout of the published ones, file by file.

The profile `paper-tiny` runs the code of `paper` on them, without a network and without a GPU. What they compute means
nothing; that they load, and how, means something: the same classes, the same file names, the pickled state dicts and
old key names of the originals, and CLASP's own fusions as the whole modules that its authors pickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from clasp_lib import tiny_corpora
from clasp_lib.convert import PUBLISHED
from clasp_lib.folders import only_process, written_whole
from clasp_lib.paper_tiny.files import WIDTHS
from clasp_lib.paper_tiny.fusions import EFFICIENTNET, STAND_INS, clasp, efficientnet
from clasp_lib.paper_tiny.speech import HUBERT, SYMBOLS, VITS, WAV2VEC2, WHISPER, hubert, vits, wav2vec2, whisper
from clasp_lib.paper_tiny.text import LABSE, SMALL_100, XLM_R, labse, small_100, xlm_r

__all__ = [
    "EFFICIENTNET",
    "HUBERT",
    "LABSE",
    "SMALL_100",
    "STAND_INS",
    "SYMBOLS",
    "VITS",
    "WAV2VEC2",
    "WHISPER",
    "WIDTHS",
    "XLM_R",
    "make_checkpoints",
]

_MARKER = "paper-tiny.json"


def make_checkpoints(folder: str | Path) -> Path:
    """Write all tiny checkpoints and corpora below `folder`, each under its name on the hub, unless they are there.

    Of several processes one writes them while the others wait.

    Raises:
        DatasetError: the folder cannot be written, or holds something else.
    """
    folder, marker = Path(folder), Path(folder) / _MARKER
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(tiny_corpora.__file__)]
    source = b"".join(file.read_bytes() for file in files)
    made_by = json.dumps({"weights": "random", "made by": hashlib.sha256(source).hexdigest()})
    if not _is_made_by(made_by, marker):
        with only_process(folder.with_name(f".{folder.name}.lock"), wait=True):
            if not _is_made_by(made_by, marker):  # another process may have made them in the meantime
                _make(folder, made_by)
    return folder


def _is_made_by(made_by: str, marker: Path) -> bool:
    return marker.is_file() and marker.read_text("utf-8") == made_by


def _make(folder: Path, made_by: str) -> None:
    import torch

    with torch.random.fork_rng(), written_whole(folder, _MARKER) as new:
        torch.manual_seed(0)
        hubert(new / HUBERT)
        wav2vec2(new / WAV2VEC2)
        efficientnet(new / EFFICIENTNET)
        labse(new / LABSE)
        xlm_r(new / XLM_R)
        small_100(new / SMALL_100)
        clasp(new / PUBLISHED)
        vits(new / VITS)
        whisper(new / WHISPER)
        tiny_corpora.write_corpora(new)
        (new / _MARKER).write_text(made_by, encoding="utf-8")
