"""Broken checkpoints: CLASP folders, encoders, pickles for the converter. Each is refused by name, and nothing of it is
run, believed or copied into memory by its own word alone."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Encoders, Tiny, tiny_model
from safetensors.torch import load_file, save_file

from clasp_lib import CLASP
from clasp_lib.convert import convert, main, read_published
from clasp_lib.corpus import brown
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.errors import CheckpointError
from clasp_lib.vector_store import VectorStore, join_stores
from hard.conftest import Ended, within

GROUP = "bad checkpoints"


@pytest.fixture(scope="module")
def saved(encoders: Encoders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "good"
    tiny_model(encoders).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


class Canary:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


# CLASP folders -----------------------------------------------------------------------------------------------------


def configured(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), "utf-8")


def without(folder: Path, key: str) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    del config[key]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def weighted(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def header(folder: Path, text: bytes, length: int | None = None) -> None:
    """A safetensors file of a header alone."""
    size = struct.pack("<Q", len(text) if length is None else length)
    (folder / "model.safetensors").write_bytes(size + text)


def nan(tensors: dict[str, torch.Tensor]) -> None:
    next(t for t in tensors.values() if t.is_floating_point()).flatten()[0] = torch.nan


def infinite(tensors: dict[str, torch.Tensor]) -> None:
    next(t for t in tensors.values() if t.is_floating_point()).flatten()[0] = torch.inf


WIDTHS = {"speech_width": 32, "picture_width": 20, "width": 24}
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "is not a CLASP model.*No such file"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "is not a CLASP model.*No such file"),
    "a folder for the configuration": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
        "is not a CLASP model",
    ),
    "an empty configuration": (lambda f: (f / "config.json").write_bytes(b""), "is not a CLASP model"),
    "half a configuration": (lambda f: (f / "config.json").write_text('{"fusion": "lin'), "is not a CLASP model"),
    "a configuration in UTF-16": (
        lambda f: (f / "config.json").write_text(json.dumps(WIDTHS), "utf-16"),
        "is not a CLASP model",
    ),
    "a list for a configuration": (lambda f: (f / "config.json").write_text("[]"), "config.json: holds no table"),
    "a number for a configuration": (lambda f: (f / "config.json").write_text("3"), "config.json: holds no table"),
    "a hundred thousand lists": (lambda f: (f / "config.json").write_text("[" * 100_000), "is not a CLASP model"),
    "another model's configuration": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
        "config.json: lacks fusion, fusion_config, .*expected what `CLASP.save_pretrained` writes",
    ),
    "no fusion": (lambda f: without(f, "fusion"), "config.json: lacks fusion;"),
    "no encoder of speech": (lambda f: without(f, "speech_encoder"), "config.json: lacks speech_encoder;"),
    "no layer": (lambda f: without(f, "speech_layer"), "config.json: lacks speech_layer;"),
    "no encoder of texts": (lambda f: without(f, "text_encoder"), "config.json: lacks text_encoder;"),
    "a fusion that is not known": (lambda f: configured(f, fusion="average"), "fusion 'average' is not known. Choose"),
    "a fusion that is a number": (lambda f: configured(f, fusion=3), "is not a CLASP model"),
    "a fusion that is a path": (lambda f: configured(f, fusion="../../etc"), "is not known. Choose"),
    "another fusion": (lambda f: configured(f, fusion="gating"), "is not a CLASP model.*(Missing|Unexpected)"),
    "widths that are a list": (lambda f: configured(f, fusion_config=[32, 20, 24]), "is not a CLASP model"),
    "widths that are words": (
        lambda f: configured(f, fusion_config=dict.fromkeys(WIDTHS, "wide")),
        "is not a CLASP model",
    ),
    "widths below zero": (lambda f: configured(f, fusion_config=WIDTHS | {"width": -24}), "is not a CLASP model"),
    "widths of a planet": (
        lambda f: configured(f, fusion_config=dict.fromkeys(WIDTHS, 400_000)),
        "is not a CLASP model.*size mismatch",
    ),
    "widths beyond 64 bits": (
        lambda f: configured(f, fusion_config=dict.fromkeys(WIDTHS, 10**12)),
        "is not a CLASP model",
    ),
    "an option that is not known": (
        lambda f: configured(f, fusion_config=WIDTHS | {"depth": 3}),
        "is not a CLASP model.*depth",
    ),
    "a layer that is not there": (lambda f: configured(f, speech_layer=99), "has 2 layers, so there is no layer 99"),
    "a layer that is a word": (lambda f: configured(f, speech_layer="last"), "is not a CLASP model|no layer"),
    "a drawing that is not known": (lambda f: configured(f, drawing="oil"), "drawing 'oil' is not known. Choose one"),
    "an encoder that is gone": (lambda f: configured(f, speech_encoder=str(f / "gone")), "gone: cannot be loaded"),
    "an encoder that is a number": (lambda f: configured(f, text_encoder=5), "cannot be loaded|is not a CLASP model"),
    "an encoder that is a file": (
        lambda f: configured(f, text_encoder=str(f / "config.json")),
        "config.json: cannot be loaded",
    ),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "is not a CLASP model"),
    "weights of text": (lambda f: (f / "model.safetensors").write_text("<html>" * 99), "is not a CLASP model"),
    "weights cut off": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        "is not a CLASP model",
    ),
    "weights cut in the header": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:99]),
        "is not a CLASP model",
    ),
    "a header of 16 exabytes": (lambda f: header(f, b"{}", 2**64 - 1), "is not a CLASP model"),
    "a header that is no JSON": (lambda f: header(f, b"{" * 64), "is not a CLASP model"),
    "a header without tensors": (lambda f: header(f, b"{}"), "is not a CLASP model.*Missing"),
    "a tensor of 16 exabytes": (
        lambda f: header(f, b'{"a":{"dtype":"F32","shape":[4294967296,1073741824],"data_offsets":[0,4]}}'),
        "is not a CLASP model",
    ),
    "a tensor outside the file": (
        lambda f: header(f, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4096,4100]}}'),
        "is not a CLASP model",
    ),
    "a weight is missing": (
        lambda f: weighted(f, lambda t: t.update({"other": t.pop(min(t))})),
        "is not a CLASP model.*Missing key",
    ),
    "a weight too many": (
        lambda f: weighted(f, lambda t: t.update(extra=torch.zeros(1))),
        "is not a CLASP model.*Unexpected key.*extra",
    ),
    "a weight of whole numbers": (
        lambda f: weighted(f, lambda t: t.update({min(t): torch.zeros(3, dtype=torch.int64)})),
        "is not a CLASP model",
    ),
    "NaN among the weights": (lambda f: weighted(f, nan), "holds NaN or infinite values. Save the model again"),
    "infinity among the weights": (lambda f: weighted(f, infinite), "holds NaN or infinite values. Save the model"),
    "a pickle for weights": (
        lambda f: torch.save({"a": torch.zeros(1)}, f / "model.safetensors"),
        "is not a CLASP model",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_broken_clasp_folder_is_refused(name: str, folder: Path, ended: Ended) -> None:
    spoil, said = FOLDERS[name]
    spoil(folder)
    with within(60), ended.refused(GROUP, f"CLASP folder: {name}", re.compile(said, re.DOTALL)) as caught:
        CLASP.from_pretrained(folder)
    assert str(folder) in str(caught.value) or name.startswith(
        ("a fusion that is", "a layer", "a drawing", "an encoder")
    )


def test_weights_that_would_run_something_run_nothing(folder: Path, tmp_path: Path, ended: Ended) -> None:
    for number, protocol in enumerate(range(pickle.HIGHEST_PROTOCOL + 1)):
        canary = tmp_path / f"canary-{number}"
        for file in ("model.safetensors", "pytorch_model.bin", "training_args.bin"):
            (folder / file).write_bytes(pickle.dumps(Canary(canary), protocol))
        with ended.refused(GROUP, f"a pickle of protocol {protocol} for weights", folder):
            CLASP.from_pretrained(folder)
        assert not canary.exists()


def test_half_precision_is_read_as_single(folder: Path, encoders: Encoders, ended: Ended) -> None:
    weighted(folder, lambda t: t.update({k: v.half() for k, v in t.items() if v.is_floating_point()}))
    found = CLASP.from_pretrained(folder)
    assert {p.dtype for p in found.fusion.parameters()} == {torch.float32}
    good = tiny_model(encoders).encode_text(["rain"])
    np.testing.assert_allclose(found.encode_text(["rain"]), good, atol=1e-4)
    ended(GROUP, "CLASP folder: half precision", "accepted")


@pytest.mark.parametrize("name", [None, 5, b"pocket", ["pocket"], {"name": "pocket"}, True])
def test_what_is_no_name_of_a_model_is_refused(name: Any, ended: Ended) -> None:
    with ended.refused(GROUP, f"from_pretrained({name!r})", "give a name such as 'pocket', a folder, or a hub id"):
        CLASP.from_pretrained(name)


@pytest.mark.parametrize("name", ["", "no such name", "a/b/c", "../elsewhere", "pocket\0", "x" * 5_000, "café/ü", "/"])
def test_a_model_that_is_not_there_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Ended
) -> None:
    monkeypatch.chdir(tmp_path)
    if len(name) > 1_000:
        with pytest.raises(CheckpointError):
            CLASP.from_pretrained(name)
        return
    with (
        within(30),
        ended.refused(GROUP, f"from_pretrained({name!r})", re.compile("nor a folder|is not a CLASP model")),
    ):
        CLASP.from_pretrained(name)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "cpu:x", "", 3.5, "tpu"])
def test_a_device_that_cannot_be_used_is_refused(device: Any, saved: Path, tiny: Tiny, ended: Ended) -> None:
    if device == "":  # is none: the default
        assert SpeechEncoder(str(tiny.hubert), device=device).device.type in ("cpu", "cuda")
        return
    for door, call in (
        ("CLASP", lambda: CLASP.from_pretrained(saved, device=device)),
        ("SpeechEncoder", lambda: SpeechEncoder(str(tiny.hubert), device=device)),
        ("SpectrogramEncoder", lambda: SpectrogramEncoder(str(tiny.efficientnet), device=device)),
        ("TextEncoder", lambda: TextEncoder(str(tiny.sentences), device=device)),
    ):
        with ended.refused(GROUP, f"device {device!r}: {door}", f"device {device!r}: cannot be used"):
            call()


def test_a_folder_that_cannot_be_written_is_said(encoders: Encoders, tmp_path: Path, ended: Ended) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises((OSError, CheckpointError), match="file"):
        tiny_model(encoders).save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    ended(GROUP, "save_pretrained into a file", "clear message")


# Encoders ----------------------------------------------------------------------------------------------------------

ENCODERS = {"hubert": SpeechEncoder, "efficientnet": SpectrogramEncoder, "sentences": TextEncoder}
SPOILT: dict[str, Callable[[Path], object]] = {
    "empty folder": lambda f: [file.unlink() for file in f.rglob("*") if file.is_file()],
    "empty configuration": lambda f: (f / "config.json").write_bytes(b""),
    "list for a configuration": lambda f: (f / "config.json").write_text("[]"),
    "hundred thousand lists": lambda f: (f / "config.json").write_text("[" * 100_000),
    "model that is not known": lambda f: (f / "config.json").write_text('{"model_type": "x", "architecture": "x"}'),
    "empty weights": lambda f: (f / "model.safetensors").write_bytes(b""),
    "weights of text": lambda f: (f / "model.safetensors").write_text("<html>" * 99),
    "header of 16 exabytes": lambda f: header(f, b"{}", 2**64 - 1),
    "header without tensors": lambda f: header(f, b'{"__metadata__":{"format":"pt"}}'),
    "weights cut off": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-99]),
    "half a weight": lambda f: weighted(f, lambda t: t.update({max(t): t[max(t)][:1].clone()})),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_broken_encoder_is_refused_by_name(name: str, how: str, tiny: Tiny, tmp_path: Path, ended: Ended) -> None:
    bad = Path(shutil.copytree(getattr(tiny, name), tmp_path / "encoder"))
    SPOILT[how](bad)
    with within(60), ended.refused(GROUP, f"{name}: {how}", bad):
        ENCODERS[name](str(bad))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_with_a_pickle_in_it_runs_nothing(name: str, tiny: Tiny, tmp_path: Path, ended: Ended) -> None:
    bad, canary = Path(shutil.copytree(getattr(tiny, name), tmp_path / "encoder")), tmp_path / "canary"
    (bad / "model.safetensors").unlink()
    for file in ("pytorch_model.bin", "model.bin"):
        (bad / file).write_bytes(pickle.dumps(Canary(canary), 2))
    with ended.refused(GROUP, f"{name}: a pickle for weights", bad):
        ENCODERS[name](str(bad))
    assert not canary.exists()


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_with_code_of_its_own_runs_nothing(name: str, tiny: Tiny, tmp_path: Path, ended: Ended) -> None:
    """Remote code is trusted by nobody who was not asked."""
    bad, canary = Path(shutil.copytree(getattr(tiny, name), tmp_path / "encoder")), tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')\nclass Config: ...\nclass Model: ...\n"
    (bad / "evil.py").write_text(code)
    config = json.loads((bad / "config.json").read_text("utf-8"))
    own = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": "evil"}
    (bad / "config.json").write_text(json.dumps(config | own | {"architecture": "evil"}), "utf-8")
    if (bad / "modules.json").is_file():
        (bad / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Model"}]', "utf-8")
    with within(60), ended.refused(GROUP, f"{name}: code of its own", bad):
        ENCODERS[name](str(bad))
    assert not canary.exists()


# The converter -----------------------------------------------------------------------------------------------------


def stored(file: Path, names: list[str], data: bytes, kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name in names:
            archive.writestr(name, data)


HARMLESS = pickle.dumps({"a": 1}, 2)
PICKLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda f: f.write_bytes(b""), "is not a file of torch.save, or is truncated"),
    "one byte": (lambda f: f.write_bytes(b"P"), "is not a file of torch.save, or is truncated"),
    "a page": (lambda f: f.write_text("<html>Not found</html>"), "is not a file of torch.save"),
    "zeros": (lambda f: f.write_bytes(bytes(4_096)), "is not a file of torch.save"),
    "the beginning of an archive": (lambda f: f.write_bytes(b"PK\x03\x04"), "is not a file of torch.save"),
    "an archive of nothing": (lambda f: stored(f, [], b""), "is not a file of torch.save"),
    "an archive of texts": (lambda f: stored(f, ["a/readme.txt"], b"x"), "is not a file of torch.save"),
    "two pickles": (lambda f: stored(f, ["a/data.pkl", "b/data.pkl"], HARMLESS), "an archive of 2 pickles"),
    "a compressed pickle": (
        lambda f: stored(f, ["a/data.pkl"], HARMLESS + bytes(10**7), zipfile.ZIP_DEFLATED),
        "or a compressed one",
    ),
    "a pickle that climbs": (lambda f: stored(f, ["../../data.pkl"], HARMLESS), "is damaged, or holds|is not a file"),
    "an absolute pickle": (lambda f: stored(f, ["/etc/data.pkl"], HARMLESS), "is damaged, or holds|is not a file"),
    "a pickle of a table": (lambda f: stored(f, ["a/data.pkl"], HARMLESS), "is damaged, or holds|holds one dict"),
    "a pickle without an end": (lambda f: stored(f, ["a/data.pkl"], HARMLESS[:-1]), "is not a file of torch.save"),
    "a pickle of depth": (
        lambda f: stored(f, ["a/data.pkl"], b"\x80\x02" + b"]" * 10**6 + b"."),
        "is not a|is damaged",
    ),
    "a text of 4 GB": (
        lambda f: stored(f, ["a/data.pkl"], b"\x80\x02X\xff\xff\xff\xff."),
        "is not a file of torch.save",
    ),
    "a table of weights": (lambda f: torch.save({"a": torch.zeros(2)}, f), "expected a whole module"),
    "a tensor": (lambda f: torch.save(torch.zeros(2), f), "expected a whole module|which no published"),
    "a layer": (lambda f: torch.save(torch.nn.Linear(2, 2), f), "holds one Linear; expected a whole module"),
    "safetensors": (lambda f: save_file({"a": torch.zeros(2)}, f), "is not a file of torch.save"),
    "a folder": (lambda f: f.mkdir(), "cannot be read"),
    "not there": (lambda f: None, "cannot be read.*No such file"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_file_that_is_no_published_module_is_refused(name: str, tmp_path: Path, ended: Ended) -> None:
    make, said = PICKLES[name]
    file = tmp_path / "one" / "two" / "model.pt"
    file.parent.mkdir(parents=True)
    make(file)
    before = sorted(tmp_path.rglob("*"))
    with within(60), ended.refused(GROUP, f"converter: {name}", file, re.compile(said)) as caught:
        read_published(file)
    assert isinstance(caught.value, CheckpointError)
    with pytest.raises(CheckpointError):
        convert(file, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("shape", ["bare", "archive", "torch"])
def test_a_pickle_that_would_run_something_runs_nothing(
    shape: str, protocol: int, tmp_path: Path, ended: Ended
) -> None:
    file, canary = tmp_path / "model.pt", tmp_path / "canary"
    data = pickle.dumps(Canary(canary), protocol)
    if shape == "bare":
        file.write_bytes(data)
    elif shape == "archive":
        stored(file, ["a/data.pkl"], data)
    else:
        torch.save({"a": Canary(canary)}, file, pickle_protocol=max(1, protocol))
    with ended.refused(GROUP, f"converter: a call, {shape}, protocol {protocol}", file):
        read_published(file)
    assert not canary.exists()


def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ended: Ended
) -> None:
    from test_convert import HubertLabseConcat, published, save

    monkeypatch.setattr(HubertLabseConcat, "__module__", "__main__")
    source = save(published(), tmp_path / "model.pt")
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file" / "below", tmp_path / "file"):
        assert main([str(source), str(target)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ") and str(tmp_path / "file") in said and said.count("\n") == 1
        ended(GROUP, f"converter: into {target.name}", "refused")
    with ended.refused(GROUP, "converter: a NUL in the name", "cannot be read"):
        read_published("a\0b.pt")


# Stores of features, and the corpus --------------------------------------------------------------------------------


def test_a_damaged_store_of_features_is_refused_by_file(tmp_path: Path, ended: Ended) -> None:
    identity = {"encoder": "speech", "weights": "w"}
    store = VectorStore(tmp_path / "store", identity, 3)
    store.add({"a": np.ones(3, np.float32), "b": np.zeros(3, np.float32)})
    [file] = (tmp_path / "store").rglob("*.safetensors")
    good = file.read_bytes()
    for name, content in (
        ("empty", b""),
        ("cut off", good[:-2]),
        ("cut in the header", good[:20]),
        ("text", b"<html>" * 99),
        ("header of 16 exabytes", struct.pack("<Q", 2**64 - 1) + good[8:]),
        ("a changed header", good.replace(b"speech", b"spooch")),
        ("a pickle", pickle.dumps(Canary(tmp_path / "canary"), 2)),
    ):
        file.write_bytes(content)
        for door, call in (
            ("VectorStore", lambda: VectorStore(tmp_path / "store", identity, 3)),
            ("join_stores", lambda: join_stores([tmp_path / "store"], tmp_path / "joined")),
        ):
            if (name, door) != ("a changed header", "join_stores"):  # to which any identity is right
                with ended.refused(GROUP, f"store of features, {name}: {door}", file, "Delete it"):
                    call()
    assert not (tmp_path / "canary").exists()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with ended.refused(GROUP, "store of features, a changed number: verify", file, "has changed since it was written"):
        VectorStore(tmp_path / "store", identity, 3).verify()
    with ended.refused(GROUP, "store of features, none: join_stores", "holds no stored features"):
        join_stores([tmp_path / "nowhere"], tmp_path / "joined")


def test_a_broken_corpus_is_refused(tmp_path: Path, ended: Ended) -> None:
    file = tmp_path / "brown.zip"
    good = {"brown/cats.txt": b"ca01 news\n", "brown/ca01": b"The/at rain/nn falls/vb ./.\n"}

    def archive(**changes: bytes | None) -> bytes:
        records = good | {name.replace("__", "/"): data for name, data in changes.items()}
        with zipfile.ZipFile(file, "w") as opened:
            for name, data in records.items():
                if data is not None:
                    opened.writestr(name, data)
        return file.read_bytes()

    whole = archive()
    for name, content in (
        ("empty", b""),
        ("text", b"<html>" * 99),
        ("cut off", whole[: len(whole) // 2]),
        ("bytes changed", whole.replace(b"rain", b"snow")),
        ("no categories", archive(brown__cats__txt=None).replace(b"cats", b"dogs")),
        ("a file is missing", archive(brown__ca01=None)),
        ("latin-1", archive(brown__ca01="café/nn".encode("latin-1"))),
    ):
        file.write_bytes(content)
        with ended.refused(GROUP, f"brown.zip: {name}", file, "is not NLTK's brown.zip", "nltk.download"):
            brown(file)
    for name, path in (("missing", tmp_path / "none.zip"), ("a folder", tmp_path), ("a NUL", "a\0b.zip")):
        with ended.refused(GROUP, f"brown.zip: {name}", "is not NLTK's brown.zip"):
            brown(path)
    archive()
    assert [s.text for s in brown(file)] == ["The rain falls."]
    assert os.listdir(tmp_path) == ["brown.zip"]  # nothing of an archive is ever laid out
