"""The network is lost half-way in a download: what is there stays, what is missing is said, and the same call goes on.

The hub is a server of this process; all that asks it is the real code of huggingface_hub, transformers and torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import types
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from clasp_lib.errors import ClaspError
from hard.conftest import Ended, check_message, within
from hard.jobs import waves

GROUP = "network"
DATASET = "/datasets/owner/corpus/resolve/main"


class Hub(ThreadingHTTPServer):
    """Serves files as the hub does, until the line is cut.

    Attributes:
        files: by path. asked: what was asked for: method, path, first byte.
        line: bytes that go over the line before it is cut, once for each answer; None is a good line.
        answers: how many more answers there are before nobody answers any more.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.line: int | None = None
        self.answers: float = float("inf")
        self.chunked = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever is cut off complains; that is what it is for."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.server, unquote(self.path)
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        hub.asked.append((self.command, path, first))
        hub.answers -= 1
        self.close_connection = True
        if hub.answers < 0:
            return
        data = hub.files.get(path)
        if data is None:
            self.send_response(404)
            for name, value in (
                ("X-Error-Code", "EntryNotFound"),
                ("X-Repo-Commit", "c" * 40),
                ("Content-Length", "0"),
                ("Connection", "close"),
            ):
                self.send_header(name, value)
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        self.send_header("Connection", "close")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        if hub.chunked and body:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(data) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body and hub.chunked:
            part = data[: hub.line]
            self.wfile.write(
                f"{len(part):x}\r\n".encode() + part + b"\r\n" + (b"0\r\n\r\n" if hub.line is None else b"")
            )
        elif body:
            self.wfile.write(data[first:][: hub.line])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that huggingface_hub believes in, and an empty cache."""
    import huggingface_hub.file_download
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # 10 MB: what is lost where the line breaks
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    patient = types.SimpleNamespace(**{**vars(huggingface_hub.file_download.time), "sleep": lambda seconds: None})
    for module in (huggingface_hub.file_download, _http):
        monkeypatch.setattr(module, "time", patient)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def lost(hub: Hub, line: int, answers: int) -> None:
    """The line carries so many bytes of an answer, and after so many answers it is dead."""
    hub.line, hub.answers = line, answers


def back(hub: Hub) -> None:
    hub.line, hub.answers = None, float("inf")
    hub.asked.clear()


def partial_files(cache: Path) -> list[str]:
    return [file.name for file in cache.rglob("*") if file.is_file() and file.name.endswith(".incomplete")]


def blob(size: int = 200_000) -> bytes:
    return np.random.default_rng(0).bytes(size)


def corpus() -> dict[str, bytes]:
    """Two clips of Speech Brown, as published."""
    from clasp_lib.audio import encode_audio

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for number, wave in enumerate(waves(2, 7), 1):
            opened.writestr(
                f"dataset_part1/audios/audio_{number}.wav", encode_audio(np.resize(wave, 16_000), 16_000, "WAV")
            )
    entries = [
        {"id": number, "file_path": f"dataset/part1/audios/audio_{number}.wav", "text": f"Sentence {number}."}
        for number in (1, 2)
    ]
    return {
        f"{DATASET}/global_metadata.json": json.dumps([entry | {"category": "news"} for entry in entries]).encode(),
        f"{DATASET}/localized_metadata.json": json.dumps({"part1": entries}).encode(),
        f"{DATASET}/dataset_part1.zip": archive.getvalue(),
    }


def test_a_line_that_breaks_again_and_again_is_taken_up_where_it_broke(hub: Hub, ended: Ended) -> None:
    from clasp_lib.published_corpora.clips import find_file

    data = blob()
    hub.files[f"{DATASET}/data.bin"] = data
    hub.line = 30_000
    with within(60):
        file = find_file("owner/corpus", "data.bin")
    assert file is not None and file.read_bytes() == data
    begun = [first for method, _, first in hub.asked if method == "GET"]
    assert begun[0] == 0 and begun == sorted(begun) and begun[-1] >= 150_000 and len(begun) >= 7
    ended(GROUP, "broken seven times in one file", "resumed")


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_a_network_that_is_lost_is_said_and_the_same_call_goes_on(
    hub: Hub, tmp_path: Path, answers: int, ended: Ended
) -> None:
    """After so many answers, of which the second and fourth would be files."""
    from clasp_lib.published_corpora.clips import find_file

    files = {name: blob(size) for name, size in (("one.bin", 50_000), ("two.bin", 60_000))}
    hub.files = {f"{DATASET}/{name}": data for name, data in files.items()}

    def both() -> list[bytes]:
        return [file.read_bytes() for name in files if (file := find_file("owner/corpus", name)) is not None]

    lost(hub, 100_000 if answers > 1 else 20_000, answers)
    with within(60), pytest.raises(ClaspError) as caught:
        both()
    check_message(str(caught.value), "owner/corpus", "two.bin" if answers > 1 else "one.bin", "network", "folder")
    assert not partial_files(tmp_path)
    back(hub)
    assert both() == list(files.values())
    fetched = [path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET"]
    assert fetched == (["two.bin"] if answers > 1 else ["one.bin", "two.bin"]), "what was there was fetched again"
    ended(GROUP, f"two files, lost after {answers} answers", "resumed")


def test_what_was_fetched_is_used_without_a_network(hub: Hub, ended: Ended) -> None:
    from clasp_lib.published_corpora.clips import find_file

    hub.files[f"{DATASET}/data.bin"] = blob()
    first = find_file("owner/corpus", "data.bin")
    hub.shutdown()
    hub.server_close()
    with within(60):
        assert first is not None and find_file("owner/corpus", "data.bin") == first
        ended(GROUP, "a file that is there", "accepted")
        with ended.refused(GROUP, "a file that is not there", "owner/corpus", "other.bin", "network"):
            find_file("owner/corpus", "other.bin")


@pytest.mark.parametrize("answers", [3, 5])
def test_speech_brown_is_not_half_a_corpus(hub: Hub, tmp_path: Path, answers: int, ended: Ended) -> None:
    """Lost in the metadata, or in the zip of a part."""
    from clasp_lib.published_corpora import read_speech_brown

    hub.files = corpus()

    def read() -> list[str]:
        return [text for part, _ in read_speech_brown("owner/corpus", [1]) for text in part["text"]]

    lost(hub, 100, answers) if answers == 3 else lost(hub, 100_000_000, answers)
    with within(60), pytest.raises(ClaspError) as caught:
        read()
    check_message(str(caught.value), "owner/corpus", "network")
    assert not partial_files(tmp_path)
    back(hub)
    assert read() == ["Sentence 1.", "Sentence 2."]
    ended(GROUP, f"Speech Brown, lost after {answers} answers", "resumed")


def test_fleurs_is_not_shorter_where_the_network_was_lost(hub: Hub, tmp_path: Path, ended: Ended) -> None:
    """A file that the hub has not, and a hub that does not answer, are two things."""
    import pyarrow
    import pyarrow.parquet

    from clasp_lib.audio import encode_audio
    from clasp_lib.published_corpora import read_fleurs

    for number, wave in enumerate(waves(2, 8)):
        row = {"id": number, "path": f"{number}.wav", "transcription": f"sentence {number}", "raw_transcription": "S"}
        row["audio"] = {"bytes": encode_audio(np.resize(wave, 16_000), 16_000, "WAV"), "path": f"{number}.wav"}
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), sink)
        branch = "/datasets/owner/corpus/resolve/refs/convert/parquet"
        hub.files[f"{branch}/en_us/test/{number:04d}.parquet"] = sink.getvalue()

    def read() -> list[str]:
        return read_fleurs("owner/corpus", splits=["test"]).dataset["test"]["text"]

    for answers in (1, 2, 3):  # in the first file; before the second; where it would hear that there is no third
        lost(hub, 100_000_000, answers)
        with within(60), pytest.raises(ClaspError) as caught:
            read()
        check_message(str(caught.value), "owner/corpus", "network")
        ended(GROUP, f"FLEURS, lost after {answers} answers", "refused")
    back(hub)
    assert list(read()) == ["sentence 0", "sentence 1"]
    assert not partial_files(tmp_path)
    ended(GROUP, "FLEURS, back again", "resumed")


def model_files(tmp_path: Path) -> tuple[dict[str, bytes], Callable[[], object]]:
    """The published fusion on a hub, and how it is loaded."""
    from clasp_lib.convert import PUBLISHED_WEIGHTS
    from clasp_lib.model import CLASP
    from hard.jobs import published

    published(tmp_path)
    data = (tmp_path / "published" / PUBLISHED_WEIGHTS[0]).read_bytes()

    def load() -> object:
        nowhere = str(tmp_path / "nowhere")
        return CLASP.from_pretrained("owner/model", weights_name=PUBLISHED_WEIGHTS[0], speech_encoder=nowhere)

    return {f"/owner/model/resolve/main/{PUBLISHED_WEIGHTS[0]}": data}, load


@pytest.mark.parametrize("answers", [0, 1, 2])
def test_a_model_that_is_half_there_is_not_loaded(hub: Hub, tmp_path: Path, answers: int, ended: Ended) -> None:
    hub.files, load = model_files(tmp_path)
    lost(hub, 1_000, answers)
    with within(60), ended.refused(GROUP, f"a model, lost after {answers} answers", "owner/model"):
        load()
    assert not partial_files(tmp_path)
    back(hub)
    with pytest.raises(ClaspError, match="nowhere"):  # the fusion is read; its encoders are no part of this
        load()
    assert [path for method, path, _ in hub.asked if method == "GET"] == list(hub.files)


@pytest.mark.parametrize("chunked", [False, True])
def test_brown_is_downloaded_whole_or_not_at_all(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool, ended: Ended
) -> None:
    """By torch.hub, which does not take up what broke, but keeps nothing of it, either."""
    import clasp_lib.corpus

    data = blob()
    hub.files["/brown.zip"], hub.chunked = data, chunked
    monkeypatch.setattr(clasp_lib.corpus, "BROWN_URL", f"{hub.address}/brown.zip")
    monkeypatch.setattr(clasp_lib.corpus, "BROWN_SHA256", hashlib.sha256(data).hexdigest())
    folder = tmp_path / "nltk"
    for line, answers in ((1_000, 1), (0, 1), (1_000, 0)):
        lost(hub, line, answers)
        case = f"Brown{', in chunks' * chunked}, {line} bytes of {answers} answer"
        with within(60), ended.refused(GROUP, case, "brown.zip", "cannot be downloaded", str(folder)):
            clasp_lib.corpus.download_brown(folder)
        assert list(folder.iterdir()) == []
    back(hub)
    assert clasp_lib.corpus.download_brown(folder).read_bytes() == data
    ended(GROUP, f"Brown{', in chunks' * chunked}, back again", "resumed")
