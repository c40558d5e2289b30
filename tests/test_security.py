"""Hostile files, tables, checkpoints, archives and addresses, handed to the library's doors; secrets, and the network.

What the sources may not do is in test_security_sources.py, bad input of all kinds in tests/hard; book/threats.md says
what all of it is for.
"""

from __future__ import annotations

import argparse
import http.server
import importlib
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, Clip, Tiny

from clasp_lib.errors import AudioError, ClaspError, DatasetError

if TYPE_CHECKING:
    from clasp_lib import CLASP

ROOT = Path(__file__).resolve().parents[1]
SECRET = "hf_" + "NoOneMayEverReadThis"

# Checkpoints --------------------------------------------------------------------------------------------------------


class Canary:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, nest: Path) -> None:
        self.nest = nest

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.nest),)


def poison(file: Path, nest: Path) -> None:
    """Write a pickled state dict that makes `nest` when it is loaded."""
    import torch

    torch.save({"weight": torch.zeros(2), "bird": Canary(nest)}, file)


def module_that_acts(file: Path, nest: Path, *classes: str) -> None:
    """Write a Python module that makes `nest` when it is imported."""
    lines = ["import os", f"os.mkdir({str(nest)!r})", *(f"class {name}: ..." for name in classes)]
    file.write_text("\n".join(lines), "utf-8")


def _rewritten(folder: Path, file: str, **changes: Any) -> None:
    known = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(known | changes), "utf-8")


def _pickled_hubert(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.encoders import SpeechEncoder

    shutil.copytree(tiny.hubert, folder)
    (folder / "model.safetensors").unlink()
    poison(folder / "pytorch_model.bin", nest)
    SpeechEncoder(str(folder), device="cpu")


def _hubert_with_code(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.encoders import SpeechEncoder

    shutil.copytree(tiny.hubert, folder)
    module_that_acts(folder / "own.py", nest, "OwnConfig", "OwnModel")
    _rewritten(
        folder, "config.json", model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    )
    SpeechEncoder(str(folder), device="cpu")


def _recogniser_with_code(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.transcription import load_recogniser

    shutil.copytree(tiny.hubert, folder)
    module_that_acts(folder / "own.py", nest, "OwnConfig", "OwnTokenizer")
    _rewritten(folder, "config.json", model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})
    load_recogniser(str(folder), device="cpu")


def _pickled_picture_encoder(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.encoders import SpectrogramEncoder

    shutil.copytree(tiny.efficientnet, folder)
    (folder / "model.safetensors").unlink()
    poison(folder / "pytorch_model.bin", nest)
    SpectrogramEncoder(str(folder), device="cpu")


def _pickled_torchvision(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.encoders import SpectrogramEncoder

    folder.mkdir()
    poison(folder / "efficientnet_b0_weights.pth", nest)
    SpectrogramEncoder(str(folder / "efficientnet_b0_weights.pth"), device="cpu")


def _pickled_sentence_encoder(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.encoders import TextEncoder

    shutil.copytree(tiny.sentences, folder)
    (folder / "model.safetensors").unlink()
    poison(folder / "pytorch_model.bin", nest)
    TextEncoder(str(folder), device="cpu")


def _pickled_layer_of_a_sentence_encoder(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.encoders import TextEncoder

    shutil.copytree(tiny.sentences, folder)
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    dense = {"idx": len(modules), "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules, dense]), "utf-8")
    (folder / "2_Dense").mkdir()
    config = {"in_features": 24, "out_features": 24, "bias": True, "activation_function": "torch.nn.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(config), "utf-8")
    poison(folder / "2_Dense" / "pytorch_model.bin", nest)
    TextEncoder(str(folder), device="cpu")


def _sentence_encoder_with_code(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.encoders import TextEncoder

    shutil.copytree(tiny.sentences, folder)
    module_that_acts(folder / "own.py", nest, "Own")
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules[0]["type"] = "own.Own"
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    TextEncoder(str(folder), device="cpu")


def _saved_model(folder: Path, tiny: Tiny) -> dict[str, Any]:
    """The configuration of a CLASP model on the tiny encoders."""
    folder.mkdir()
    widths = {"speech_width": 32, "picture_width": 20, "width": 24}
    config = {"fusion": "linear", "fusion_config": widths, "speech_encoder": str(tiny.hubert), "speech_layer": -1}
    config |= {"spectrogram_encoder": str(tiny.efficientnet), "text_encoder": str(tiny.sentences)}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return config


def _pickled_clasp(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib import CLASP

    _saved_model(folder, tiny)
    poison(folder / "model.safetensors", nest)
    CLASP.from_pretrained(folder, device="cpu")


def _published_clasp(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib import CLASP
    from clasp_lib.convert import PUBLISHED_WEIGHTS

    folder.mkdir()
    poison(folder / PUBLISHED_WEIGHTS[0], nest)
    CLASP.from_pretrained(folder, device="cpu")


def _clasp_that_names_a_poisoned_encoder(folder: Path, nest: Path, tiny: Tiny) -> None:
    from safetensors.torch import save_file

    from clasp_lib import CLASP
    from clasp_lib.fusion import build_fusion

    config = _saved_model(folder, tiny)
    save_file(build_fusion("linear", **config["fusion_config"]).state_dict(), folder / "model.safetensors")
    poison(folder / "efficientnet_b0.pth", nest)
    _rewritten(folder, "config.json", spectrogram_encoder=str(folder / "efficientnet_b0.pth"))
    CLASP.from_pretrained(folder, device="cpu")


def _pickled_state_of_a_run(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.run_state import load_state

    folder.mkdir()
    poison(folder / "state.safetensors", nest)
    load_state(folder / "state.safetensors")


def _pickled_features(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.vector_store import VectorStore

    store = VectorStore(folder, {"encoder": "speech"}, 4)
    store.add({"a": np.ones(4, np.float32)})
    (shard,) = folder.rglob("*.safetensors")
    poison(shard, nest)
    VectorStore(folder, {"encoder": "speech"}, 4)


def _pickled_index(folder: Path, nest: Path, tiny: Tiny) -> None:
    from clasp_lib.index.local import LocalStore
    from clasp_lib.index.store import about_model

    store = LocalStore.create(folder, about_model(None, "f", 4))
    from clasp_lib.index.entries import Entry

    store.add([Entry("a", "a.wav", 0.0, 1.0, None, {})], np.ones((1, 4), np.float32))
    (vectors,) = folder.glob("*.safetensors")
    poison(vectors, nest)
    LocalStore.open(folder, verify=False)


DOORS: tuple[Callable[[Path, Path, Tiny], None], ...] = (
    *(_pickled_hubert, _hubert_with_code, _recogniser_with_code, _pickled_picture_encoder, _pickled_torchvision),
    *(_pickled_sentence_encoder, _pickled_layer_of_a_sentence_encoder, _sentence_encoder_with_code, _pickled_clasp),
    *(_published_clasp, _clasp_that_names_a_poisoned_encoder, _pickled_state_of_a_run, _pickled_features),
    _pickled_index,
)


def test_the_canary_does_what_it_is_for(tmp_path: Path) -> None:
    import torch

    poison(tmp_path / "x.bin", tmp_path / "nest")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "nest").is_dir()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__.strip("_").replace("_", " "))
def test_no_code_of_a_checkpoint_is_run(
    door: Callable[[Path, Path, Tiny], None], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nest = tmp_path / "nest"
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("somebody was asked to trust it"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(ClaspError) as caught:
        door(tmp_path / "stranger", nest, tiny)
    assert not nest.exists(), "code of the checkpoint was run"
    said = str(caught.value)
    assert "stranger" in said, "the message names the file or folder"
    assert not re.search("weights_only|trust_remote_code", said), "the message advises to trust the file all the same"


# Archives and paths -------------------------------------------------------------------------------------------------

OUTSIDE = ("../secret.wav", "a/../../secret.wav", "/etc/hostname", "..", "a\0.wav", "link.wav")
"""Names in a table, each of which leads out of the folder; the last is a link that does."""


def snapshot(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def tone(file: Path) -> bytes:
    soundfile.write(file, 0.5 * np.sin(np.arange(RATE) / 8).astype(np.float32), RATE)
    return file.read_bytes()


def test_an_archive_of_brown_is_read_and_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clasp_lib.corpus import brown

    inside = tmp_path / "work"
    inside.mkdir()
    monkeypatch.chdir(inside)
    with zipfile.ZipFile(inside / "brown.zip", "w") as archive:
        archive.writestr("brown/cats.txt", "../../escaped.txt news\n")
        archive.writestr("brown/../../escaped.txt", "The/at boat/nn left/vbd ./.\n")
        archive.writestr("/absolute.txt", "x")
        archive.writestr("../../escaped-too.txt", "x")
    before = snapshot(tmp_path)
    try:
        texts = [sentence.text for sentence in brown(inside / "brown.zip")]
    except DatasetError:
        texts = []
    assert texts in ([], ["The boat left."])  # what is in the archive, under whatever name, and nothing else
    assert snapshot(tmp_path) == before


def _speech_brown(folder: Path, member: str, named: str, sound: bytes) -> Path:
    """Speech Brown with one clip: what its zip calls it, and what its metadata does."""
    folder.mkdir()
    entry = {"id": 1, "file_path": named, "text": "The boat left."}
    (folder / "global_metadata.json").write_text(json.dumps([entry | {"category": "news"}]), "utf-8")
    (folder / "localized_metadata.json").write_text(json.dumps({"part1": [entry]}), "utf-8")
    with zipfile.ZipFile(folder / "dataset_part1.zip", "w") as archive:
        archive.writestr(member, sound)
    return folder


@pytest.mark.parametrize("member", ["../../escaped.wav", "/tmp/escaped.wav", "a/b/../../../escaped.wav", "escaped.wav"])
def test_an_archive_of_speech_brown_is_read_and_never_unpacked(
    member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clasp_lib.published_corpora import read_speech_brown

    sound = tone(tmp_path / "tone.wav")
    folder = _speech_brown(tmp_path / "corpus", member, f"dataset/part1/{member}", sound)
    monkeypatch.chdir(folder)
    before = snapshot(tmp_path)
    ((dataset, skipped),) = read_speech_brown(folder, parts=(1,))
    assert dataset[0]["audio"] == {"bytes": sound, "path": "escaped.wav"} and not skipped  # a bare name
    assert snapshot(tmp_path) == before


def test_metadata_cannot_make_speech_brown_read_files_beside_the_archive(tmp_path: Path) -> None:
    from clasp_lib.published_corpora import read_speech_brown

    sound = tone(tmp_path / "secret.wav")
    folder = _speech_brown(tmp_path / "corpus", "audios/one.wav", "../secret.wav", sound)
    with pytest.raises(DatasetError, match=r"secret\.wav"):
        list(read_speech_brown(folder, parts=(1,)))


def _boasting(file: Path, **members: bytes) -> None:
    """A zip whose members say that they unpack to 5 GB each, as those of a bomb truly do."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for info in archive.infolist():
            info.file_size = 5_000_000_000


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    from clasp_lib.corpus import brown
    from clasp_lib.published_corpora import read_speech_brown

    _boasting(tmp_path / "brown.zip", **{"brown/cats.txt": b"ca01 news\n", "brown/ca01": b"The/at boat/nn ./."})
    with pytest.raises(DatasetError, match=r"brown\.zip.*10,000 MB"):
        brown(tmp_path / "brown.zip")
    folder = _speech_brown(tmp_path / "corpus", "audios/one.wav", "audios/one.wav", tone(tmp_path / "tone.wav"))
    _boasting(folder / "dataset_part1.zip", **{"audios/one.wav": tone(tmp_path / "tone.wav")})
    with pytest.raises(AudioError, match=r"one\.wav.*5,000 MB"):
        list(read_speech_brown(folder, parts=(1,)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One recording, and beside the folder another that is nobody's business."""
    folder = tmp_path / "mine"
    (folder / "a").mkdir(parents=True)
    tone(folder / "one.wav")
    tone(tmp_path / "secret.wav")
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    return folder


def _table(folder: Path, name: str) -> None:
    (folder / "metadata.csv").write_text(f'file,text\n"{name}",The boat left.\n', "utf-8")


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("door", ["a dataset", "an index", "a report"])
def test_a_table_cannot_lead_out_of_its_folder(door: str, name: str, folder: Path, model: CLASP) -> None:
    from clasp_lib import SpeechIndex
    from clasp_lib.report import evaluate_folder
    from clasp_lib.speech_brown import read_recordings

    _table(folder, name)
    doors: dict[str, Callable[[], Any]] = {
        "a dataset": lambda: read_recordings(folder, on_error="skip"),
        "an index": lambda: SpeechIndex.build(model, folder, on_error="skip"),
        "a report": lambda: evaluate_folder(model, folder, name="tiny", on_error="skip"),
    }
    with pytest.raises(ClaspError) as caught:
        doors[door]()
    assert "metadata.csv" in str(caught.value)


@pytest.mark.parametrize("name", ["../secret.mp3", "a/b.mp3", "/etc/hostname", "..", "x\0.mp3"])
def test_a_table_of_common_voice_names_files_of_its_folder_only(name: str, tmp_path: Path) -> None:
    from clasp_lib.published_corpora import read_common_voice

    (tmp_path / "en" / "clips").mkdir(parents=True)
    (tmp_path / "en" / "test.tsv").write_text(f"client_id\tpath\tsentence\nanna\t{name}\tThe boat left.\n", "utf-8")
    with pytest.raises(ClaspError):
        read_common_voice(tmp_path / "en", tables=("test",))


@pytest.mark.parametrize("name", ["../there/{}", "/{}", "a/../../there/{}"])
def test_a_manifest_cannot_name_parts_of_another_folder(name: str, tmp_path: Path) -> None:
    from clasp_lib.index.entries import Entry
    from clasp_lib.index.local import LocalStore
    from clasp_lib.index.manifest import read_manifest, write_manifest
    from clasp_lib.index.store import about_model

    for place in ("there", "here"):
        store = LocalStore.create(tmp_path / place, about_model(None, "f", 4))
        store.add([Entry("a", f"{place}.wav", 0.0, 1.0, None, {})], np.ones((1, 4), np.float32))
    manifest = read_manifest(tmp_path / "there")
    manifest["segments"][0][0] = name.format(manifest["segments"][0][0])
    write_manifest(tmp_path / "here", manifest)  # with a checksum that is right: it is no signature
    with pytest.raises(DatasetError, match="here"):
        LocalStore.open(tmp_path / "here")


# Secrets ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A server in the place of the hub that refuses everybody, and the tokens that it was shown."""
    shown: list[str] = []

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization", ""))
            self.send_response(401)
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *about: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", shown
    server.shutdown()
    thread.join()
    server.server_close()


ASKING = """
import json, logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from clasp_lib import CLASP, ClaspError
from clasp_lib.provenance import provenance
from clasp_lib.published_corpora.clips import find_file

for ask in (lambda: CLASP.from_pretrained("anna/model"), lambda: find_file("anna/corpus", "a.zip")):
    try:
        ask()
    except ClaspError as error:
        print("refused:", error)
print(json.dumps(provenance(["x"])))
"""


def test_the_token_of_the_hub_is_shown_to_the_hub_alone(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, shown = hub
    variables = {"HF_TOKEN": SECRET, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ASKING], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.stdout.count("refused:") == 2, done.stderr[-2_000:]
    assert f"Bearer {SECRET}" in shown, "the token was not in use, so this test would prove nothing"
    assert SECRET not in done.stdout + done.stderr
    kept = [file for file in tmp_path.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert kept == []


def test_what_is_saved_holds_no_variable_of_the_environment(
    model: CLASP, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clasp_lib import SpeechIndex
    from clasp_lib.report import evaluate_folder
    from clasp_lib.report.files import write_report

    for name in ("HF_TOKEN", "MILVUS_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    lines = ["file,text"]
    for i, clip in enumerate(clips):
        soundfile.write(recordings / f"{i}.wav", clip.samples, RATE)
        lines.append(f'{i}.wav,"{clip.text}"')
    (recordings / "metadata.csv").write_text("\n".join(lines), "utf-8")
    SpeechIndex.build(model, recordings, folder=tmp_path / "index")
    model.save_pretrained(tmp_path / "model")
    write_report(evaluate_folder(model, recordings, name="tiny", resamples=50), tmp_path / "report")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 12
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


class NoIndex:
    """What a command asks of an index."""

    store = SimpleNamespace(known=dict)
    model = None

    def __len__(self) -> int:
        return 0

    def search(self, *asked: Any, **more: Any) -> list[Any]:
        return []

    def remove(self, names: list[str]) -> int:
        return 0

    def close(self) -> None: ...


ADDRESS = "http://anna:PASSWORD@127.0.0.1:1/clips"
LINES = (
    ("index", ADDRESS, "--remove", "a"),
    ("index", ADDRESS, "--remove", "a", "--json"),
    ("search", ADDRESS, "a query"),
    ("search", ADDRESS, "a query", "--json"),
    ("demo", ADDRESS, "--json"),
)


def ctrl_c(args: Any) -> int:
    raise KeyboardInterrupt  # and no signal: what runs in the background of a shell ignores that


@pytest.mark.parametrize("end", ["an error", "Ctrl-C", "done"])
@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(word for word in line if word != ADDRESS))
def test_a_password_in_an_address_is_not_repeated(
    line: tuple[str, ...], end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clasp_lib import cli, demo
    from clasp_lib.index import SpeechIndex, milvus_connection

    module = importlib.import_module(f"clasp_lib.cli.{line[0]}")
    page = SimpleNamespace(local_url="http://127.0.0.1:7860", share_url=None, is_running=False, close=lambda verbose: 0)
    if end == "an error":
        monkeypatch.setattr(milvus_connection, "_CONNECT_S", 0.2)
    elif end == "Ctrl-C":
        monkeypatch.setattr(module, "run", ctrl_c)
    else:
        monkeypatch.setattr(SpeechIndex, "load", lambda *given: NoIndex())
        monkeypatch.setattr(module, "model_of", lambda *given: ("tiny", None), raising=False)
        monkeypatch.setattr(module, "_stored_name", lambda *given, **more: "tiny", raising=False)
        monkeypatch.setattr(module, "load_model", lambda *given: None, raising=False)
        monkeypatch.setattr(demo, "launch_demo", lambda *given, **more: page)
    assert cli.main(line) == {"an error": 1, "Ctrl-C": 130, "done": 0}[end]
    said = capsys.readouterr()
    assert "PASSWORD" not in said.out + said.err and "anna" not in said.out + said.err
    tells = end == "an error" or ((line[0] == "index" or "--json" in line) and end == "done")
    assert ("127.0.0.1:1/clips" in said.out + said.err) >= tells, "the place itself is still named"


@pytest.mark.parametrize(
    "address", ["http://anna:se/cret@host:1", "http://anna:se@cret@host/1/2/3", "tcp://a:secret@h:p"]
)
def test_a_password_in_an_address_that_is_none_is_not_repeated(address: str) -> None:
    from clasp_lib.index.milvus_connection import parse_address

    with pytest.raises(ClaspError, match="host") as caught:
        parse_address(address)
    assert not re.search("se@?c|'se'|cret", str(caught.value)) and caught.value.__cause__ is None


# The network, and the demo -------------------------------------------------------------------------------------------


def test_searching_asks_no_network(
    model: CLASP, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clasp_lib import SpeechIndex, locate

    asked: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        asked.append(address)
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *about, **more: refuse(None, about))  # type: ignore[arg-type]
    items = [{"array": clip.samples, "sampling_rate": RATE} for clip in clips]
    index = SpeechIndex.build(model, items, folder=tmp_path / "index")
    assert index.search("a query", k=2) and SpeechIndex.load(tmp_path / "index", model).search("a query")
    assert locate(model, {"array": np.concatenate([clip.samples for clip in clips]), "sampling_rate": RATE}, "rain")
    model.save_pretrained(tmp_path / "model")
    for address in ("http://127.0.0.1/a.wav", "file:///etc/hostname", "https://example.org/a.wav"):
        for item in (address, {"bytes": None, "path": address}):
            with pytest.raises(AudioError, match="no such file"):
                model.encode_speech([item])  # type: ignore[list-item]
    assert asked == []


def test_the_demo_is_for_this_machine_alone_unless_told_otherwise() -> None:
    from clasp_lib.cli import demo
    from clasp_lib.demo import Limits, launch_demo

    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    given = parser.parse_args([])
    assert given.host == "127.0.0.1" and given.share is False
    defaults = {name: p.default for name, p in inspect.signature(launch_demo).parameters.items()}
    assert defaults["host"] == "127.0.0.1" and defaults["share"] is False and defaults["limits"] == Limits()
    assert all(0 < getattr(Limits(), field.name) < 100_000 for field in fields(Limits))


def test_the_page_on_threats_names_the_tests_that_hold_it() -> None:
    page = (ROOT / "book" / "threats.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w./]+)`", page)
    assert "tests/test_security.py" in named
    assert [name for name in named if not (ROOT / name).exists()] == []
