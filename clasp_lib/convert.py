"""The published fusion encoders are pickled modules: read them without running them, and write them as safetensors.

    python -m clasp_lib.convert CLASP_Gating.pt folder

A pickle is a program, and loading one plainly runs whatever it says. Here three things stand in its way. All names that
it asks for are read first and compared with a short list; what is not on it is named and refused. `torch.load` then
opens it under `weights_only`, which knows no other names either. And the names of modules stand for inert objects that
keep the state they are given and can do nothing else, so no code of a module runs, be it of torch or of the pickle.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from clasp_lib.errors import CheckpointError, ClaspError, brief
from clasp_lib.folders import written_whole
from clasp_lib.fusion import Fusion, build_fusion

PUBLISHED = "llm-lab/CLASP"
"""Where CLASP's authors keep their weights on the hub."""

PUBLISHED_WEIGHTS = (
    "CLASP_Concat_Final_Fusion_Encoder.pt",
    "CLASP_Gating.pt",
    "LASP_Concat.pt",
    "LASP_Gating.pt",
)
"""Its four files: CLASP trained by contrast, LASP by regression. The first is the best of them."""

PUBLISHED_ENCODERS = {
    "speech_encoder": "facebook/hubert-large-ls960-ft",
    "speech_layer": -1,
    "speech_reference": True,
    "spectrogram_encoder": "torchvision/efficientnet_b7",
    "drawing": "matplotlib",
    "text_encoder": "sentence-transformers/LaBSE",
}
"""What the published fusions were trained on: as `CLASP.config` says it."""

_BRANCH = ("Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear", "BatchNorm1d", "LeakyReLU", "Dropout", "Linear")
_MIX = ("Linear", "BatchNorm1d", "LeakyReLU", "Linear", "LeakyReLU", "Linear")
_SIGMOID, _TANH = ("Linear", "Sigmoid"), ("Linear", "Tanh")
_PARTS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "HubertLabseConcat": {
        "audio_seq": ("speech_branch.{}", _BRANCH),
        "image_seq": ("picture_branch.{}", _BRANCH),
        "mix_seq": ("mix.{}", _MIX),
    },
    "HubertLabseGating": {
        "text_seq": ("speech_branch.{}", _BRANCH),  # called text, but speech goes in
        "image_seq": ("picture_branch.{}", _BRANCH),
        "input_gate_text": ("speech_gates.input", _SIGMOID),
        "input_gate_image": ("picture_gates.input", _SIGMOID),
        "forget_gate_text": ("speech_gates.forget", _SIGMOID),
        "forget_gate_image": ("picture_gates.forget", _SIGMOID),
        "tanh_text": ("speech_gates.candidate", _TANH),
        "tanh_image": ("picture_gates.candidate", _TANH),
        "weight": ("weight", ("Linear",)),
    },
}
"""The published classes: each part, what its layers (by number) are called in `clasp_lib.fusion`, and their kinds."""

_FUSIONS = {
    ("HubertLabseConcat", "joint"): "concatenation",
    ("HubertLabseConcat", "audio"): "speech_only",
    ("HubertLabseConcat", "image"): "picture_only",
    ("HubertLabseGating", "joint"): "gating",
}
"""By class and `.mode`, which older files lack."""

_KEYS = ("fusion", "fusion_config", "speech_encoder", "speech_layer", "spectrogram_encoder", "text_encoder")
"""Without which a configuration is not that of a CLASP model."""

_SETTINGS = {"eps": 1e-5, "negative_slope": 0.01}
"""Of batch norm and leaky ReLU: they change what a layer puts out and are not among its weights."""

_MODULES = (
    *(f"__main__.{name}" for name in _PARTS),
    *(f"torch.nn.modules.activation.{name}" for name in ("LeakyReLU", "ReLU", "Sigmoid", "Tanh")),
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.dropout.Dropout",
    "torch.nn.modules.linear.Linear",
)
_ALLOWED = {
    *_MODULES,
    "__builtin__.set",  # how pickle's protocol 2 spells it
    "builtins.set",
    "collections.OrderedDict",
    "torch.FloatStorage",
    "torch.LongStorage",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
}


class _Inert:
    """Stands in for a class of the pickle. Slots rather than a dictionary: no state can cover up an attribute."""

    __slots__ = ("state",)
    state: dict[str, Any]

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or hasattr(self, "state"):
            raise pickle.UnpicklingError(f"this is not how the state of a {type(self).__name__} is stored")
        self.state = state


def _stand_in(name: str) -> type[_Inert]:
    module, _, short = name.rpartition(".")
    return type(short, (_Inert,), {"__slots__": (), "__module__": module, "__qualname__": short})


_STAND_INS: list[Any] = [_stand_in(name) for name in _MODULES]


def convert(source: str | Path, target: str | Path) -> None:
    """Turn one of the published files into a folder that `CLASP.from_pretrained` loads: whole, or not at all.

    Raises:
        CheckpointError: `source` is not such a file, or `target` exists.
        DatasetError: `target` cannot be written.
    """
    from safetensors.torch import save_file

    config, fusion = read_published(source)
    if Path(target).exists():
        raise CheckpointError(f"{target}: exists already and is not replaced. Name a folder that does not.")
    with written_whole(target, "config.json") as folder:
        save_file(fusion.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_published(source: str | Path) -> tuple[dict[str, Any], Fusion]:
    """The configuration that `CLASP.config` would give, and the fusion with its weights, of a published file.

    Saved on a GPU or not, by any torch; no code of it is run. The widths may be others than the published ones.

    Raises:
        CheckpointError: missing, damaged, not a pickled fusion encoder of CLASP's authors, or more than that.
    """
    root = _opened(Path(source))
    kind = type(root).__name__
    if not isinstance(root, _Inert) or kind not in _PARTS:
        raise CheckpointError(f"{source}: holds one {kind}; expected a whole module, {' or '.join(_PARTS)}.")
    mode = _state(root, source).get("mode", "joint")
    if not isinstance(mode, str) or (kind, mode) not in _FUSIONS:
        raise CheckpointError(f"{source}: is a {kind} of mode {mode!r}, which is not known.")
    name = _FUSIONS[kind, mode]
    weights = _weights(root, source)
    try:
        (_, speech_width), (width, _) = weights["speech_branch.0.weight"].shape, weights["speech_branch.8.weight"].shape
        (_, picture_width) = weights["picture_branch.0.weight"].shape
    except (AttributeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{source}: the first or last layer of a branch has no matrix of weights.") from error
    with torch.device("meta"):  # shapes alone: a lie about them costs no memory
        fusion = build_fusion(name, speech_width, picture_width, width)
    expected = fusion.state_dict()
    for key, like in expected.items():
        _check(weights.get(key), like, f"{source}: {key}")
    fusion.load_state_dict({key: weights[key].detach().clone() for key in expected}, assign=True)
    config = {"model_type": "clasp", "fusion": name, "fusion_config": fusion.config}
    return config | PUBLISHED_ENCODERS, fusion.eval()


def read_saved(config_file: str | Path, weights_file: str | Path) -> tuple[dict[str, Any], Fusion]:
    """The same of the two files that `CLASP.save_pretrained` writes.

    Raises:
        CheckpointError: a configuration that is none, or weights that are damaged, do not fit it, or hold what is no
            finite number. ClaspError: a fusion that is not known.
    """
    from safetensors.torch import load_file

    try:
        config = json.loads(Path(config_file).read_text("utf-8"))
        if not isinstance(config, dict) or (missing := [key for key in _KEYS if key not in config]):
            lacks = f"lacks {', '.join(missing)}" if isinstance(config, dict) else "holds no table"
            raise CheckpointError(f"{config_file}: {lacks}; expected what `CLASP.save_pretrained` writes.")
        try:
            with torch.device("meta"):  # as above
                fusion = build_fusion(config["fusion"], **config["fusion_config"])
        except ClaspError as error:
            raise CheckpointError(f"{config_file}: {error}") from error
        weights = {name: tensor.clone() for name, tensor in load_file(weights_file).items()}
        fusion.load_state_dict(weights, assign=True)
    except ClaspError:
        raise
    except Exception as error:  # json, safetensors and torch each raise their own kinds
        raise CheckpointError(
            f"{Path(config_file).parent}: is not a CLASP model that can be loaded ({brief(error)}). Save it again."
        ) from error
    for name, tensor in fusion.float().state_dict().items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{weights_file}: {name} holds NaN or infinite values. Save the model again.")
    return config, fusion.eval()


def _weights(root: _Inert, source: str | Path) -> dict[str, torch.Tensor]:
    """All tensors under the names of `clasp_lib.fusion`, once the module is laid out as the published one is."""
    parts = _PARTS[type(root).__name__]
    sequences = _state(root, source)["_modules"]
    if sequences.keys() != parts.keys():
        raise CheckpointError(f"{source}: consists of {', '.join(map(str, sequences))}; expected {', '.join(parts)}.")
    weights = {}
    for part, (ours, layers) in parts.items():
        found = _state(sequences[part], source)["_modules"]
        kinds = tuple(type(layer).__name__ for layer in found.values())
        if type(sequences[part]).__name__ != "Sequential" or kinds != layers:
            raise CheckpointError(f"{source}: {part} consists of {', '.join(kinds)}; expected {', '.join(layers)}.")
        for number, layer in enumerate(found.values()):
            state = _state(layer, source)
            for setting, usual in _SETTINGS.items():
                if repr(state.get(setting, usual)) != repr(usual):
                    raise CheckpointError(f"{source}: {part}.{number} has {setting} {state[setting]!r}, not {usual}.")
            for name, value in {**state["_parameters"], **state["_buffers"]}.items():
                weights[f"{ours.format(number)}.{name}"] = value
    return weights


def _state(module: Any, source: str | Path) -> dict[str, Any]:
    """What a stand-in was given, once it has the shape of a module's attributes."""
    state = getattr(module, "state", None) if isinstance(module, _Inert) else None
    tables = [state.get(table) for table in ("_modules", "_parameters", "_buffers")] if state is not None else [None]
    if state is None or not all(isinstance(table, dict) for table in tables):
        raise CheckpointError(f"{source}: holds a {type(module).__name__} where a module with its state is expected.")
    if hooks := [name for name, table in state.items() if "hooks" in str(name) and not _is_empty(table)]:
        raise CheckpointError(f"{source}: a {type(module).__name__} of it has {', '.join(hooks)}; expected none.")
    return state


def _is_empty(table: object) -> bool:
    return isinstance(table, dict) and not table


def _check(value: object, like: torch.Tensor, name: str) -> None:
    if not isinstance(value, torch.Tensor):
        raise CheckpointError(f"{name} is missing.")
    # One that is not contiguous may be small and call itself large.
    if value.shape != like.shape or value.dtype != like.dtype or not value.is_contiguous():
        raise CheckpointError(
            f"{name} is {value.dtype} of shape {tuple(value.shape)}; expected {like.dtype}, {tuple(like.shape)}."
        )
    if not value.isfinite().all():
        raise CheckpointError(f"{name} holds NaN or infinite values.")


def _opened(path: Path) -> object:
    """What the file holds, with stand-ins for modules."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # the second for a name that no file can have
        raise CheckpointError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}).") from error
    try:
        data = _scanned(data)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {error}. Nothing of it was run.") from error
    except Exception as error:  # zipfile and pickletools raise many kinds on damaged files
        raise CheckpointError(f"{path}: is not a file of torch.save, or is truncated ({error}).") from error
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, its advice to load the file all the same among them
        raise CheckpointError(f"{path}: is damaged, or holds more than a module and its tensors.") from error


def _scanned(data: bytes) -> bytes:
    """A file whose pickles ask for nothing but what is allowed, in a form that `weights_only` accepts."""
    if data.startswith(b"PK\x03\x04"):  # as torch tells the two formats apart
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(records) != 1 or any(record.compress_type for record in archive.infolist()):
                raise ValueError(f"an archive of {len(records)} pickles, or a compressed one")
            if damaged := archive.testzip():  # torch does not compare checksums
                raise ValueError(f"{damaged} has another checksum than when it was written")
            _check_names(pickletools.genops(archive.read(records[0])))
        return data
    # Before torch 1.6: magic number, version, machine, object, keys of the storages; then the storages themselves.
    stream, starts, module = io.BytesIO(data), [0], []
    for number in range(5):
        operations = list(pickletools.genops(stream))
        _check_names(operations)
        starts.append(stream.tell())
        if number == 3:
            module = operations
    return data[: starts[3]] + _without_module_ids(module, data, starts[4]) + data[starts[4] :]


def _check_names(operations: Iterable[Any]) -> None:
    """Read a pickle's operations, without running them, for the names of classes and functions."""
    names, texts = set(), ["?", "?"]
    for operation, argument, _ in operations:
        if operation.name in ("GLOBAL", "INST"):
            names.add(argument.replace(" ", "."))
        elif operation.name == "STACK_GLOBAL":  # of protocols that torch.save does not use: refused whatever it is
            names.add(f"{'.'.join(texts[-2:])} (by protocol 4)")
        elif isinstance(argument, str):
            texts.append(argument)
    if unknown := sorted(names - _ALLOWED):
        shown = ", ".join(unknown)[:500]
        raise pickle.UnpicklingError(f"asks for {shown}, which no published fusion encoder needs")


def _without_module_ids(operations: Any, data: bytes, end: int) -> bytes:
    """The pickle `data[...:end]` with each id ("module", class, file, source) replaced by its class.

    Old files store the class of a module in that way when it comes first; `weights_only` accepts no ids but storages'.
    """
    places = [position for _, _, position in operations] + [end]
    texts: dict[int, Any] = {}  # pickle's memo, as far as it holds strings
    kept, done, mark = bytearray(), places[0], 0
    for i, (operation, argument, _) in enumerate(operations):
        if operation.name == "MARK":
            mark = i
        elif operation.name.endswith("BINPUT") and operations[i - 1][0].name == "BINUNICODE":
            texts[argument] = operations[i - 1][1]
        elif operation.name == "BINPERSID":
            first, text, _ = operations[mark + 1]
            if (texts.get(text) if first.name.endswith("BINGET") else text) == "module":
                (of_class,) = [j for j in range(mark, i) if operations[j][0].name == "GLOBAL"]
                kept += data[done : places[mark]] + data[places[of_class] : places[of_class + 2]]  # and its memo entry
                done = places[i + 1]
    return bytes(kept + data[done:end])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: write the folder, or print an error and give exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m clasp_lib.convert", description=convert.__doc__)
    parser.add_argument("source", type=Path, help=f"one of {', '.join(PUBLISHED_WEIGHTS)}")
    parser.add_argument("target", type=Path, help="the folder to write, which must not exist yet")
    args = parser.parse_args(arguments)
    try:
        convert(args.source, args.target)
    except (ClaspError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
