"""The published pickles: what they compute is what the converted fusion computes, and nothing in them ever runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Clip, Tiny
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from clasp_lib import CLASP
from clasp_lib.audio import resample
from clasp_lib.convert import PUBLISHED, PUBLISHED_ENCODERS, PUBLISHED_WEIGHTS, convert, main, read_published
from clasp_lib.errors import CheckpointError, ClaspError

# The published modules, restated from what is known of them: at the widths of the tiny encoders, or at the real ones.


def branch(width_in: int, width: int) -> nn.Sequential:
    narrow = width // 4 * 3
    first = [nn.Linear(width_in, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(p=0.15)]
    second = [nn.Linear(width, narrow), nn.BatchNorm1d(narrow), nn.LeakyReLU(), nn.Dropout(p=0.1)]
    return nn.Sequential(*first, *second, nn.Linear(narrow, width))


class HubertLabseConcat(nn.Module):
    def __init__(self, speech: int, picture: int, width: int, mode: str | None = None) -> None:
        super().__init__()
        if mode is not None:  # older files have no such attribute
            self.mode = mode
        self.image_seq, self.audio_seq = branch(picture, width), branch(speech, width)
        wide, less = {24: (32, 25), 768: (1024, 800)}[width]
        norm = nn.BatchNorm1d(wide)
        self.mix_seq = nn.Sequential(
            nn.Linear(width + width, wide),
            norm,
            nn.LeakyReLU(),
            nn.Linear(wide, less),
            nn.LeakyReLU(),
            nn.Linear(less, width),
        )

    def forward(self, audio: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        a, b = self.audio_seq(audio), self.image_seq(image)
        if getattr(self, "mode", "joint") != "joint":
            return {"audio": a, "image": b}[self.mode]
        return self.mix_seq(torch.hstack([a, b]))


class HubertLabseGating(nn.Module):
    def __init__(self, speech: int, picture: int, width: int) -> None:
        super().__init__()
        self.image_seq, self.text_seq = branch(picture, width), branch(speech, width)
        for gate, squash in (("input_gate", nn.Sigmoid), ("forget_gate", nn.Sigmoid), ("tanh", nn.Tanh)):
            for modality in ("text", "image"):
                setattr(self, f"{gate}_{modality}", nn.Sequential(nn.Linear(width, width), squash()))
        self.weight = nn.Sequential(nn.Linear(2 * width, 2 * width))

    def forward(self, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        t, i = self.text_seq(text), self.image_seq(image)
        t = self.input_gate_text(t) * self.tanh_text(t) + self.forget_gate_text(t) * t
        i = self.input_gate_image(i) * self.tanh_image(i) + self.forget_gate_image(i) * i
        share = functional.softmax(self.weight(torch.hstack([t, i])), dim=1)
        return share[:, : t.shape[1]] * t + share[:, t.shape[1] :] * i


KINDS: dict[str, Callable[..., nn.Module]] = {"concatenation": HubertLabseConcat, "gating": HubertLabseGating}


pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


@pytest.fixture(autouse=True)
def saved_from_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (HubertLabseConcat, HubertLabseGating):
        monkeypatch.setattr(kind, "__module__", "__main__")


def published(kind: str = "concatenation", widths: tuple[int, int, int] = (32, 20, 24), **options: Any) -> nn.Module:
    """One with weights and running statistics as if it were trained."""
    torch.manual_seed(len(kind))
    module = KINDS[kind](*widths, **options)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.weight.uniform_(0.5, 2.0)
                layer.bias.normal_()
            elif isinstance(layer, nn.Linear):
                layer.weight.mul_(3)  # saturated gates and softmax: what is mixed up shows
        for _ in range(20):
            module(torch.rand(8, widths[0]), torch.randn(8, widths[1]))
    return module.eval()


def save(module: object, path: Path, old: bool = False) -> Path:
    """As in a notebook: its classes can be found while the file is written, and never after."""
    home = sys.modules["__main__"]
    with pytest.MonkeyPatch.context() as patch:
        for kind in (HubertLabseConcat, HubertLabseGating):
            patch.setattr(home, kind.__name__, kind, raising=False)
        torch.save(module, path, _use_new_zipfile_serialization=not old)
    return path


def inputs(widths: tuple[int, int, int] = (32, 20, 24)) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return 3 * torch.rand(7, widths[0], generator=random), torch.randn(7, widths[1], generator=random)


def expected(module: nn.Module, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """The authors normalise both inputs before they call the module; ours does it inside."""
    return module(functional.normalize(speech), functional.normalize(picture))


# What is converted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    ("kind", "options"), [("concatenation", {}), ("concatenation", {"mode": "joint"}), ("gating", {})]
)
@torch.inference_mode()
def test_the_published_forward_is_reproduced(kind: str, options: dict[str, Any], old: bool, tmp_path: Path) -> None:
    module = published(kind, **options)
    config, fusion = read_published(save(module, tmp_path / "model.pt", old))
    found = fusion(*inputs())
    torch.testing.assert_close(found, expected(module, *inputs()), atol=1e-5, rtol=0)
    assert found.std(0).mean() > 1e-2  # the vectors differ, so equality says something
    assert config["fusion"] == kind and not fusion.training
    assert config["fusion_config"] == {"speech_width": 32, "picture_width": 20, "width": 24}
    assert config.items() >= PUBLISHED_ENCODERS.items()


@pytest.mark.parametrize(("mode", "kind"), [("audio", "speech_only"), ("image", "picture_only")])
@torch.inference_mode()
def test_a_module_in_the_mode_of_one_branch_is_that_branch(mode: str, kind: str, tmp_path: Path) -> None:
    module = published(mode=mode)
    config, fusion = read_published(save(module, tmp_path / "model.pt"))
    assert config["fusion"] == kind
    torch.testing.assert_close(fusion(*inputs()), expected(module, *inputs()), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "count"), [("concatenation", 6_344_608), ("gating", 9_237_888)])
@torch.inference_mode()
def test_the_published_sizes(kind: str, count: int, tmp_path: Path) -> None:
    widths = (1024, 1000, 768)
    module = published(kind, widths)
    path = save(module, tmp_path / "model.pt")
    _, fusion = read_published(path)
    assert sum(p.numel() for p in fusion.parameters()) == sum(p.numel() for p in module.parameters()) == count
    assert count * 4 < path.stat().st_size < count * 4 + 100_000
    torch.testing.assert_close(fusion(*inputs(widths)), expected(module, *inputs(widths)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
def test_a_module_saved_on_a_gpu_is_read_without_one(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
    path = save(published(), tmp_path / "model.pt", old)
    assert b"cuda:0" in path.read_bytes()
    _, fusion = read_published(path)
    assert all(tensor.device.type == "cpu" for tensor in fusion.state_dict().values())


def test_reading_leaves_no_trace_in_torch(tmp_path: Path) -> None:
    path = save(published(), tmp_path / "model.pt")
    before = set(torch.serialization.get_safe_globals())
    read_published(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_a_folder_is_written_and_loads(tiny: Tiny, clips: list[Clip], tmp_path: Path) -> None:
    source, target = save(published("gating"), tmp_path / "CLASP_Gating.pt"), tmp_path / "made" / "gating"
    assert main([str(source), str(target)]) == 0
    assert {path.name for path in target.iterdir()} == {"config.json", "model.safetensors"}
    assert json.loads((target / "config.json").read_text())["speech_encoder"] == "facebook/hubert-large-ls960-ft"
    _, fusion = read_published(source)
    for name, tensor in load_file(target / "model.safetensors").items():
        torch.testing.assert_close(tensor, fusion.state_dict()[name], atol=0, rtol=0)
    (from_folder, from_pickle) = (CLASP.from_pretrained(place, **stand_ins(tiny)) for place in (target, tmp_path))
    assert from_folder.fingerprint == from_pickle.fingerprint
    waves = [clip.samples for clip in clips[:2]]
    np.testing.assert_array_equal(from_folder.encode_speech(waves), from_pickle.encode_speech(waves))
    from_folder.save_pretrained(tmp_path / "again")
    assert CLASP.from_pretrained(tmp_path / "again").fingerprint == from_folder.fingerprint


def test_nothing_is_replaced_or_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = save(published(), tmp_path / "model.pt"), tmp_path / "target"
    target.mkdir()
    (target / "config.json").write_text("mine")
    assert main([str(source), str(target)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (target / "config.json").read_text() == "mine" and len(list(target.iterdir())) == 1

    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("clasp_lib.convert.json.dumps", broken)
    with pytest.raises(ClaspError, match=r"cannot be written .no space"):
        convert(source, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "target"]


# Loading by name ---------------------------------------------------------------------------------------------------


def stand_ins(tiny: Tiny) -> dict[str, str]:
    return {
        "speech_encoder": str(tiny.hubert),
        "spectrogram_encoder": str(tiny.efficientnet),
        "text_encoder": str(tiny.sentences),
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The authors' repository; gives what was asked of it."""
    asked, folder = [], tmp_path / "hub"
    folder.mkdir()
    for number, file in enumerate(PUBLISHED_WEIGHTS):
        save(published(("concatenation", "gating")[number % 2]), folder / file)

    def download(repository: str, file: str, **options: Any) -> str:
        asked.append((repository, file))
        if repository != PUBLISHED or not (folder / file).is_file():
            raise OSError(f"404: {repository}/{file}")
        return str(folder / file)

    monkeypatch.setattr("clasp_lib.model.hf_hub_download", download)
    return asked


def test_the_published_model_is_loaded_by_its_name(
    hub: list[tuple[str, str]], tiny: Tiny, clips: list[Clip], tmp_path: Path
) -> None:
    model = CLASP.from_pretrained(PUBLISHED, **stand_ins(tiny))
    assert hub == [("llm-lab/CLASP", "CLASP_Concat_Final_Fusion_Encoder.pt")]
    assert model.fusion_name == "concatenation"
    assert model.config["speech_reference"] is True and model.config["drawing"] == "matplotlib"
    assert model.speech_encoder.sampling_rate == 16_000 and model.spectrogram_encoder.sampling_rate == 22_050
    vectors = model.encode_speech([clip.samples for clip in clips[:2]])
    with torch.inference_mode():
        speech = model.speech_encoder.encode([clip.samples for clip in clips[:2]])
        drawn = model.spectrogram_encoder.encode([resample(clip.samples, 16_000, 22_050) for clip in clips[:2]])
        raw = expected(published(), torch.from_numpy(speech), torch.from_numpy(drawn))
    np.testing.assert_allclose(vectors, functional.normalize(raw).numpy(), atol=1e-4)


def test_another_published_file_is_chosen_by_its_name(hub: list[tuple[str, str]], tiny: Tiny, tmp_path: Path) -> None:
    model = CLASP.from_pretrained(PUBLISHED, weights_name="LASP_Gating.pt", **stand_ins(tiny))
    assert hub == [("llm-lab/CLASP", "LASP_Gating.pt")] and model.fusion_name == "gating"
    for name in (PUBLISHED, tmp_path / "hub"):
        with pytest.raises(CheckpointError, match=r"GLASP\.pt"):
            CLASP.from_pretrained(name, weights_name="GLASP.pt", **stand_ins(tiny))
    (tmp_path / "hub" / PUBLISHED_WEIGHTS[0]).unlink()
    assert CLASP.from_pretrained(tmp_path / "hub", **stand_ins(tiny)).fusion_name == "gating"  # the first that is there


def test_encoders_of_other_widths_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    save(published(widths=(16, 20, 24)), tmp_path / "LASP_Concat.pt")
    with pytest.raises(ClaspError, match=r"built for .*'speech_width': 16.*encoders give .*'speech_width': 32"):
        CLASP.from_pretrained(tmp_path, **stand_ins(tiny))


# Pickles that would run something ----------------------------------------------------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def touch(marker: Path) -> Calls:
    return Calls(os.system, f"touch {marker}")


def evaluate(marker: Path) -> Calls:
    return Calls(eval, f"open({str(marker)!r}, 'w')")


def place(module: nn.Module, where: str, thing: Any) -> nn.Module:
    layer: Any = module.audio_seq[0]
    if where == "beside a layer":
        module.extra = thing
    elif where == "in place of a layer":
        module.audio_seq._modules["2"] = thing
    elif where == "in place of a tensor":
        layer._parameters["weight"] = thing
    elif where == "in a hook":
        layer._forward_hooks[0] = thing
    elif where == "as a key":
        layer.__dict__["names"] = {(thing,): 1}
    return module


PLACES = ["beside a layer", "in place of a layer", "in place of a tensor", "in a hook", "as a key"]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(("thing", "name"), [(touch, f"{os.system.__module__}.system"), (evaluate, "eval")])
def test_a_call_is_named_and_never_made(
    thing: Callable[[Path], Calls], name: str, where: str, old: bool, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    path = save(place(published(), where, thing(marker)), tmp_path / "model.pt", old)
    with pytest.raises(CheckpointError, match=name) as caught:
        convert(path, tmp_path / "out")
    assert str(path) in str(caught.value) and "Nothing of it was run" in str(caught.value)
    assert not marker.exists() and not (tmp_path / "out").exists()
    with pytest.MonkeyPatch.context() as patch:  # the marker would have appeared
        for kind in (HubertLabseConcat, HubertLabseGating):
            patch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_all_calls_are_named_at_once(tmp_path: Path) -> None:
    module = place(place(published(), "in a hook", evaluate(tmp_path)), "as a key", Calls(compile, "1", "a", "eval"))
    path = save(module, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"compile, __builtin__\.eval"):
        read_published(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_plain_pickle_is_not_opened(protocol: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(touch(marker), protocol))
    with pytest.raises(CheckpointError, match=r"asks for \w+\.system"):
        read_published(path)
    assert not marker.exists()


def test_a_module_of_the_right_name_from_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "elsewhere.py").write_text(f"open({str(marker)!r}, 'w')\n")
    path = save(published(), tmp_path / "model.pt")
    pickled = zipfile.ZipFile(path).read("model/data.pkl")
    rewrite(path, pickled.replace(b"c__main__\n", b"celsewhere\n"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=r"elsewhere\.HubertLabseConcat"):
        read_published(path)
    assert not marker.exists() and "elsewhere" not in sys.modules


def rewrite(path: Path, pickled: bytes) -> None:
    """Put another pickle into a file of torch.save."""
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, record in records.items():
            new.writestr(name, pickled if name.endswith("/data.pkl") else record)


LINEAR = b"ctorch.nn.modules.linear\nLinear\n"
SET = b"c__builtin__\nset\n"
TEXT = {text: b"X" + len(text).to_bytes(4, "little") + text.encode() for text in ("__setstate__", "__class__", "state")}
TRICKS = {
    "built twice": LINEAR + b")\x81}b}b",
    "built twice, over the builder": LINEAR + b")\x81}" + TEXT["__setstate__"] + SET + b"sb}b",
    "another class, by slots": LINEAR + b")\x81N}" + TEXT["__class__"] + b"ccollections\nOrderedDict\ns\x86b",
    "another state, by slots": LINEAR + b")\x81N}" + TEXT["state"] + b"}s\x86b",
    "a state of text": LINEAR + b")\x81" + TEXT["state"] + b"b",
    "the class itself is built": LINEAR + b"q\xf0}" + TEXT["__setstate__"] + b"h\xf0sb",
    "made with an argument": LINEAR + b"}\x85\x81",
    "called with an argument": LINEAR + b"}\x85R",
    "an instance is called": LINEAR + b")\x81)R",
    "an instance is called from the memo": LINEAR + b"q\xf0)\x81q\xf0h\xf0)R",
    "a parameter around an instance": b"ctorch._utils\n_rebuild_parameter\n" + LINEAR + b")\x81\x88}\x87R",
    "a set of an instance": SET + LINEAR + b")\x81\x85R",
    "an operation of no use": b"NN0",
    "no such memo": b"h\xf7",
    "another file": TEXT["state"] + b"Q",
}


def test_a_stand_in_cannot_be_made_into_something_else(tmp_path: Path) -> None:
    good = save(published(), tmp_path / "good.pt")
    with zipfile.ZipFile(good) as archive:
        pickled = archive.read("good/data.pkl")
    head = b"\x80\x02c__main__\nHubertLabseConcat\nq\x00)\x81q\x01}q\x02("
    assert pickled.startswith(head)

    def attribute(value: bytes) -> None:
        """Give the module one attribute more."""
        rewrite(good, head + b"X\x05\x00\x00\x00extra" + value + pickled[len(head) :])

    attribute(LINEAR + b")\x81}b")
    read_published(good)  # harmless, so what is refused below is refused for what it does
    for name, trick in TRICKS.items():
        attribute(trick)
        with pytest.raises(CheckpointError, match="is damaged, or holds more"):
            read_published(good)
            pytest.fail(f"accepted: {name}")
    attribute(b"N")
    read_published(good)  # the stand-ins are what they were


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (b"", "where a module with its state is expected"),
        (b"}b", "where a module with its state is expected"),
        (b"q\x00}(X\x08\x00\x00\x00_modulesh\x00ub", "where a module with its state"),
    ],
    ids=["no state", "an empty state", "modules within itself"],
)
def test_a_module_without_parts_is_refused(state: bytes, says: str, tmp_path: Path) -> None:
    path = save(published(), tmp_path / "model.pt")
    rewrite(path, b"\x80\x02c__main__\nHubertLabseConcat\n)\x81" + state + b".")
    with pytest.raises(CheckpointError, match=says):
        read_published(path)


# Files that are something else -------------------------------------------------------------------------------------


def altered(how: str) -> object:
    """A published module with one thing wrong; None where the file itself is at fault."""
    module: Any = published()
    if how == "state dict":
        return module.state_dict()
    if how == "a tensor":
        return torch.zeros(3)
    if how == "another module":
        return nn.Linear(3, 4)
    if how == "a part is missing":
        del module.mix_seq
    elif how == "a part too many":
        module.extra = nn.Linear(2, 2)
    elif how == "a layer is missing":
        module.mix_seq = module.mix_seq[:-1]
    elif how == "a layer of another kind":
        module.audio_seq[2] = nn.LeakyReLU()
    elif how == "a layer in place of a sequence":
        module.mix_seq = nn.Linear(48, 24)
    elif how == "a weight is missing":
        module.audio_seq[4].weight = None
    elif how == "no first weight":
        module.audio_seq[0].weight = None
    elif how == "no bias":
        module.audio_seq[0] = nn.Linear(32, 24, bias=False)
    elif how == "no statistics":
        module.audio_seq[1] = nn.BatchNorm1d(24, track_running_stats=False)
    elif how == "other hidden width":
        module.audio_seq = branch(32, 24)
        module.audio_seq[4], module.audio_seq[5], module.audio_seq[8] = (
            nn.Linear(24, 19),
            nn.BatchNorm1d(19),
            nn.Linear(19, 24),
        )
    elif how == "a width of nothing":
        module.audio_seq[0].weight.data = torch.zeros(24, 1).expand(24, 10**12)
    elif how == "whole numbers":
        module.audio_seq[1].running_mean = torch.zeros(24, dtype=torch.int64)
    elif how == "NaN":
        module.mix_seq[5].bias.data[3] = torch.nan
    elif how == "half precision":
        module.half()
    elif how == "another slope":
        module.audio_seq[6].negative_slope = 0.2
    elif how == "another eps":
        module.mix_seq[1].eps = 0.1
    elif how == "another mode":
        module.mode = "both"
    elif how == "a mode that is no text":
        module.mode = ["joint"]
    elif how == "a slope that is no number":
        module.audio_seq[6].negative_slope = torch.zeros(2)
    elif how == "a part without a name":
        module._modules[7] = nn.ReLU()
    elif how == "a hook that is a tensor":
        module._forward_hooks = torch.zeros(2)
    elif how == "weights of no shape":
        module.audio_seq[0]._parameters["weight"] = OrderedDict()
    elif how == "a hook":
        module.audio_seq[0]._forward_hooks[0] = OrderedDict()
        module.audio_seq._forward_pre_hooks[1] = "x"
    return module


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("state dict", "holds one OrderedDict; expected a whole module, HubertLabseConcat or HubertLabseGating"),
        ("a tensor", "holds one Tensor"),
        ("another module", "holds one Linear"),
        ("a part is missing", "consists of image_seq, audio_seq; expected audio_seq, image_seq, mix_seq"),
        ("a part too many", "mix_seq, extra; expected"),
        ("a layer is missing", "mix_seq consists of .*, LeakyReLU; expected"),
        ("a layer of another kind", "audio_seq consists of Linear, BatchNorm1d, LeakyReLU"),
        ("a layer in place of a sequence", "mix_seq consists of"),
        ("a weight is missing", r"speech_branch\.4\.weight is missing"),
        ("no first weight", "first or last layer"),
        ("no bias", r"speech_branch\.0\.bias is missing"),
        ("no statistics", r"speech_branch\.1\.running_mean is missing"),
        ("other hidden width", r"speech_branch\.4\.weight is .*\(19, 24\); expected .*\(18, 24\)"),
        ("a width of nothing", r"speech_branch\.0\.weight is"),
        ("whole numbers", r"speech_branch\.1\.running_mean is torch\.int64"),
        ("NaN", r"mix\.5\.bias holds NaN"),
        ("half precision", r"torch\.HalfStorage"),
        ("another slope", r"audio_seq\.6 has negative_slope 0\.2, not 0\.01"),
        ("another eps", r"mix_seq\.1 has eps 0\.1"),
        ("another mode", "mode 'both'"),
        ("a mode that is no text", "mode \\['joint'\\]"),
        ("a slope that is no number", "negative_slope tensor"),
        ("a part without a name", "mix_seq, 7; expected"),
        ("a hook that is a tensor", "has _forward_hooks; expected none"),
        ("weights of no shape", "first or last layer"),
        ("a hook", "has _forward_pre_hooks; expected none"),
    ],
)
def test_a_module_that_is_not_the_published_one_is_refused(how: str, says: str, tmp_path: Path) -> None:
    path = save(altered(how), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=says) as caught:
        convert(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(kept: float, old: bool, tmp_path: Path) -> None:
    path = save(published(), tmp_path / "model.pt", old)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError, match=str(path)):
        read_published(path)


def test_what_is_not_a_pickle_is_refused(tmp_path: Path) -> None:
    text, archive = tmp_path / "page.pt", tmp_path / "archive.pt"
    text.write_text("<html>Not found</html>")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/words.txt", "nothing")
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.ReLU()), script)
    (tmp_path / "script.pt").write_bytes(script.getvalue())
    for path in (text, archive, tmp_path / "script.pt", tmp_path / "missing.pt", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)):
            read_published(path)


def test_the_command_line_reports_and_gives_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing.pt"), str(tmp_path / "out")]) == 1
    assert "missing.pt: cannot be read (No such file or directory)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
