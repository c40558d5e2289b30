"""What a way to search speech costs, with every stage counted: weights, files, memory, seconds.

Two things are paid for: a clip that enters the index, and a text query. `STAGES` says who needs what for which. A
spoken query costs what a clip does; the search itself, one matrix product, costs all alike and is left out.

`python -m clasp_lib.costs` is the child process that measures memory; `measure_costs` starts it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from clasp_lib.audio import SAMPLING_RATE, resample
from clasp_lib.convert import read_saved
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.encoders.checkpoints import resolve
from clasp_lib.errors import ClaspError
from clasp_lib.fusion import Fusion
from clasp_lib.model import CLASP
from clasp_lib.pooling import pad_frames
from clasp_lib.transcription import NOTHING_HEARD, Transcriber, Whisper, load_recogniser

ORACLE, RECOGNISED, DIRECT = "oracle transcript", "recognised transcript", "direct"

STAGES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    ORACLE: {"index": ("embed text",), "query": ("embed text",)},
    RECOGNISED: {"index": ("recognise", "embed text"), "query": ("embed text",)},
    DIRECT: {"index": ("speech encoder", "picture encoder", "fusion"), "query": ("embed text",)},
}
"""What each pipeline does with a clip that enters the index, and with a text query. Whoever types the oracle's
transcripts is not counted."""

_QUERIES = 16  # texts, asked one by one


class Parts(NamedTuple):
    """What the stages of a pipeline run on; what it does not need is None."""

    recogniser: Transcriber | Whisper | None
    speech: SpeechEncoder | None
    picture: SpectrogramEncoder | None
    fusion: Fusion | None
    text: TextEncoder | None


def measure_costs(
    model: CLASP,
    recogniser: Transcriber | Whisper | None,
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    *,
    batch_size: int = 16,
    passes: int = 5,
    memory: bool = True,
) -> dict[str, Any]:
    """The costs of each pipeline on these clips, JSON-ready; without a recogniser its pipeline is absent.

    Seconds are the median of the passes after one to warm up, all stages in turn in each pass, with the fastest and the
    slowest pass; of a clip in batches of `batch_size`, and of a text query asked alone. Seconds of a pipeline are the
    sum of its stages'. Of what two stages share, parameters and bytes count once.

    Peak memory is that of a fresh process for each pipeline, above what the same process had taken once it had
    imported the libraries and held the clips: "index" with what indexing needs loaded and run, "whole" after queries,
    too; "gpu_index" and "gpu_whole" are torch's, on a GPU.

    Args:
        waves: at 16 kHz, `(samples,)` each. texts: what is said in them, clip by clip.
        memory: whether to start the processes, which takes about ten seconds a pipeline.

    Raises:
        ClaspError: nothing to measure, a recogniser that `load_recogniser` has not loaded, or a failed process.
    """
    if not waves or len(waves) != len(texts) or passes < 1:
        raise ClaspError(f"{len(waves)} waves, {len(texts)} texts, {passes} passes: give at least one, texts for all.")
    if recogniser is not None and not isinstance(recogniser, Transcriber | Whisper):
        raise ClaspError(f"recogniser: a {type(recogniser).__name__} has no cost that is known. Use load_recogniser.")
    parts = Parts(recogniser, model.speech_encoder, model.spectrogram_encoder, model.fusion, model.text_encoder)
    pipelines = [name for name in STAGES if recogniser is not None or name != RECOGNISED]
    sizes = _sizes(parts)
    seconds = _timed(pipelines, parts, waves, texts, batch_size, passes, model.device)
    columns: dict[str, Any] = {}
    for name in pipelines:
        columns[name] = {}
        for phase, stages in STAGES[name].items():
            found = seconds[name, phase]
            columns[name][phase] = _sum_of(stages, sizes) | {
                "seconds": sum(stage["value"] for stage in found.values()),
                "stages": found,
            }
        columns[name]["whole"] = _sum_of([*STAGES[name]["index"], *STAGES[name]["query"]], sizes)
    if memory:
        for name, peak in _peaks(pipelines, model, recogniser, waves, texts, batch_size).items():
            columns[name]["peak_memory"] = peak
    return {
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "clips": len(waves),
        "seconds": round(sum(map(len, waves)) / SAMPLING_RATE, 1),
        "queries": min(_QUERIES, len(texts)),
        "batch_size": batch_size,
        "passes": passes,
        "stages": sizes,
        "columns": columns,
    }


def stored_bytes(name: str, parameters: int) -> int:
    """Bytes of the files that loading a checkpoint reads: weights, settings, tokenizer.

    A file holds all it holds: a recogniser's is no smaller where only its encoder is used. Of a checkpoint whose files
    are not found under its name, as with timm's own, what `parameters` float32 numbers take.
    """
    place = Path(resolve(name))
    if name.startswith("torchvision/") and not place.is_file():
        found = sorted(Path(torch.hub.get_dir(), "checkpoints").glob(f"{name.removeprefix('torchvision/')}_*.pth"))
        place = found[0] if found else place
    elif not place.exists():
        from huggingface_hub import snapshot_download

        with contextlib.suppress(Exception):  # not on the hub, or not here: each raises its own kind
            place = Path(snapshot_download(name.removeprefix("hf-hub:"), local_files_only=True))
    if place.is_file():
        return place.stat().st_size
    return _folder_bytes(place) if place.is_dir() else 4 * parameters


def _folder_bytes(folder: Path) -> int:
    listed = folder / "modules.json"  # of sentence-transformers, whose modules have folders of their own
    modules = json.loads(listed.read_text("utf-8")) if listed.is_file() else []
    total = 0
    for place in {folder, *(folder / module["path"] for module in modules)}:
        files = [file for file in place.glob("*") if file.is_file()]
        weights = [f for f in files if f.suffix == ".safetensors"] or [f for f in files if f.suffix in (".bin", ".pt")]
        total += sum(f.stat().st_size for f in [*weights, *(f for f in files if f.suffix in (".json", ".txt"))])
    return total


def _sizes(parts: Parts) -> dict[str, dict[str, int]]:
    """Parameters and bytes of each stage."""
    networks = {
        "recognise": parts.recogniser,
        "speech encoder": parts.speech,
        "picture encoder": parts.picture,
        "embed text": parts.text,
    }
    sizes = {
        stage: {"parameters": network.parameters, "bytes": stored_bytes(network.name, network.parameters)}
        for stage, network in networks.items()
        if network is not None
    }
    if parts.fusion is not None:
        from safetensors.torch import save

        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in parts.fusion.state_dict().items()}
        count = sum(p.numel() for p in parts.fusion.parameters())
        sizes["fusion"] = {"parameters": count, "bytes": len(save(weights, {"format": "pt"}))}
    return {stage: sizes[stage] for stage in _all_stages() if stage in sizes}


def _all_stages() -> list[str]:
    return list(dict.fromkeys(s for name in (RECOGNISED, DIRECT, ORACLE) for s in STAGES[name]["index"]))


def _sum_of(stages: Sequence[str], sizes: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {kind: sum(sizes[stage][kind] for stage in dict.fromkeys(stages)) for kind in ("parameters", "bytes")}


Clock = Callable[[str], contextlib.AbstractContextManager[None]]


def _index(
    pipeline: str, parts: Parts, waves: Sequence[np.ndarray], texts: Sequence[str], batch_size: int, clock: Clock
) -> None:
    """Clips to vectors, as one of the pipelines does it."""
    if pipeline == DIRECT:
        assert parts.speech is not None and parts.picture is not None and parts.fusion is not None
        takes_frames = parts.fusion.takes_frames
        with clock("speech encoder"):
            heard: Any = (parts.speech.frames if takes_frames else parts.speech.encode)(waves, batch_size)
        with clock("picture encoder"):
            seen = parts.picture.encode(_at(waves, parts.picture.sampling_rate), batch_size)
        with clock("fusion"), torch.inference_mode():
            device = parts.speech.device
            pictures = torch.from_numpy(seen).to(device)
            for start in range(0, len(waves), batch_size):
                some = heard[start : start + batch_size]
                speech = pad_frames([torch.from_numpy(s) for s in some]) if takes_frames else torch.from_numpy(some)
                fused = parts.fusion(speech.to(device), pictures[start : start + batch_size])
                torch.nn.functional.normalize(fused.float(), dim=-1).cpu()
        return
    assert parts.text is not None
    if pipeline == RECOGNISED:
        assert parts.recogniser is not None
        with clock("recognise"):
            texts = parts.recogniser.transcribe(_at(waves, parts.recogniser.sampling_rate), batch_size)
    with clock("embed text"):
        parts.text.encode([text or NOTHING_HEARD for text in texts], batch_size)


def _query(parts: Parts, texts: Sequence[str], clock: Clock) -> None:
    """Texts to vectors, one by one."""
    assert parts.text is not None
    with clock("embed text"):
        for text in texts[:_QUERIES]:
            parts.text.encode([text])


def _at(waves: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
    return [resample(wave, SAMPLING_RATE, rate) for wave in waves] if rate != SAMPLING_RATE else list(waves)


def _timed(
    pipelines: Sequence[str],
    parts: Parts,
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    batch_size: int,
    passes: int,
    device: torch.device,
) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """By pipeline and phase, then by stage: seconds a clip or a query, median, fastest and slowest pass."""
    taken: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def clock_of(name: str, phase: str, units: int) -> Clock:
        @contextlib.contextmanager
        def clock(stage: str) -> Iterator[None]:
            start = _now(device)
            yield
            taken[name, phase][stage].append((_now(device) - start) / units)

        return clock

    for _ in range(1 + passes):
        for name in pipelines:
            _index(name, parts, waves, texts, batch_size, clock_of(name, "index", len(waves)))
            _query(parts, texts, clock_of(name, "query", min(_QUERIES, len(texts))))
    return {
        where: {
            stage: {"value": float(np.median(all_but_first)), "low": min(all_but_first), "high": max(all_but_first)}
            for stage, (_, *all_but_first) in by_stage.items()
        }
        for where, by_stage in taken.items()
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# Memory ----------------------------------------------------------------------------------------------------------


def _peaks(
    pipelines: Sequence[str],
    model: CLASP,
    recogniser: Transcriber | Whisper | None,
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    batch_size: int,
) -> dict[str, dict[str, int]]:
    """Peak memory of each pipeline, each in a process of its own that loads what it needs and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        np.savez(Path(folder, "waves.npz"), *waves)
        order = {
            "model": folder,
            "recogniser": None if recogniser is None else recogniser.name,
            "language": getattr(recogniser, "language", None),
            "device": str(model.device),
            "threads": torch.get_num_threads(),
            "texts": list(texts),
            "batch_size": batch_size,
        }
        return {name: _in_a_process(order | {"pipeline": name}) for name in pipelines}


def _in_a_process(order: Mapping[str, Any]) -> dict[str, int]:
    run = subprocess.run(
        [sys.executable, "-m", "clasp_lib.costs"], input=json.dumps(order), capture_output=True, text=True
    )
    last = (run.stdout if run.returncode == 0 else run.stderr).strip().splitlines()[-1:]
    found: dict[str, Any] = json.loads(last[0]) if run.returncode == 0 else {"error": "".join(last)}
    if "error" in found:
        raise ClaspError(f"the process that measures the memory of {order['pipeline']!r} failed: {found['error']}")
    return found


def _measure_memory(order: Mapping[str, Any]) -> dict[str, int]:
    """In the child: load what the pipeline needs, index, then query."""
    import sentence_transformers  # noqa: F401
    import timm  # noqa: F401
    import transformers.models.hubert.modeling_hubert
    import transformers.models.whisper.modeling_whisper  # noqa: F401

    torch.set_num_threads(order["threads"])
    device, pipeline, texts = torch.device(order["device"]), order["pipeline"], order["texts"]
    with np.load(Path(order["model"], "waves.npz")) as stored:
        waves = [stored[name] for name in stored.files]
    if device.type == "cuda":
        torch.zeros(1, device=device)  # the driver's own memory belongs to nobody

    def no_clock(_: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    baseline = _peak_bytes()
    parts = _loaded(order, STAGES[pipeline]["index"], device)
    _index(pipeline, parts, waves, texts, order["batch_size"], no_clock)
    found = {"baseline": baseline, "index": _peak_bytes() - baseline, **_gpu_peak("gpu_index", device)}
    if parts.text is None:
        parts = parts._replace(text=_loaded(order, STAGES[pipeline]["query"], device).text)
    _query(parts, texts, no_clock)
    return found | {"whole": _peak_bytes() - baseline, **_gpu_peak("gpu_whole", device)}


def _loaded(order: Mapping[str, Any], stages: Sequence[str], device: torch.device) -> Parts:
    """What these stages need, as `CLASP.from_pretrained` and `load_recogniser` load it."""
    files = [Path(order["model"], file) for file in ("config.json", "model.safetensors")]
    config = json.loads(files[0].read_text("utf-8"))
    recogniser, speech, picture, fusion, text = (None,) * 5
    if "recognise" in stages:
        recogniser = load_recogniser(order["recogniser"], device=device, language=order["language"])
    if "fusion" in stages:
        speech = SpeechEncoder(
            config["speech_encoder"], layer=config["speech_layer"], reference=config["speech_reference"], device=device
        )
        picture = SpectrogramEncoder(config["spectrogram_encoder"], drawing=config["drawing"], device=device)
        fusion = read_saved(*files)[1].to(device)
    if "embed text" in stages:
        text = TextEncoder(config["text_encoder"], device=device)
    return Parts(recogniser, speech, picture, fusion, text)


def _gpu_peak(name: str, device: torch.device) -> dict[str, int]:
    return {name: torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}


def _peak_bytes() -> int:
    """The most memory that this process has held so far.

    Linux counts a child's `ru_maxrss` from its parent's; the high-water mark of `/proc` is the process's own.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    try:
        answer: dict[str, Any] = dict(_measure_memory(json.load(sys.stdin)))
    except ClaspError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
