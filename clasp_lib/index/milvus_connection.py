"""Where a Milvus database is, how to reach it, and what to say when it cannot be reached.

Milvus Lite runs inside this process and locks its folder. All that this process opens at one path share one such
database, and the last one that is closed lets go of the lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clasp_lib.errors import ClaspError, DatasetError, MissingDependencyError

COLLECTION = "clasp"
"""The name of the collection where an address gives none."""

_SCHEMES = ("http://", "https://", "tcp://")
_CONNECT_S = 10.0
# pymilvus pings every ten seconds, for which Milvus Lite ends the connection while it builds an index; each call here
# has a timeout of its own.
_NO_PINGS = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": False}


@dataclass(frozen=True)
class Address:
    """A collection of a database; as a string without the token.

    Attributes:
        uri: an absolute path, or scheme, host and port.
        embedded: Milvus Lite, in this process.
        token: "user:password" or a key; never shown.
    """

    uri: str
    embedded: bool
    collection: str = COLLECTION
    database: str = ""
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        if self.embedded:
            return self.uri
        return "/".join(part for part in (self.uri, self.database, self.collection) if part)


@dataclass
class Opened:
    """What this process knows of a Milvus Lite database that it has open, and nobody else can change.

    Attributes:
        users: stores that have it open. unflushed: rows added since the last flush.
        digests: of the recordings there, by id; None for one that is not complete. None while nobody has looked:
            that takes Milvus Lite long, since it reads the vectors as well.
    """

    users: int = 0
    unflushed: int = 0
    digests: dict[str, str | None] | None = None


_opened: dict[str, Opened] = {}
_lock = threading.Lock()
_thread = threading.local()


def is_milvus(address: str | Path) -> bool:
    """Whether this names a Milvus database: a path that ends in ".db", or a URL."""
    return str(address).endswith(".db") or str(address).lower().startswith(_SCHEMES)


def parse_address(address: str | Path) -> Address:
    """Read an address as `MilvusStore.create` describes it.

    Raises:
        ClaspError: neither a path that ends in ".db" nor such a URL. The message does not repeat a password.
    """
    address = str(address)
    if not address.lower().startswith(_SCHEMES):
        if not address.endswith(".db"):
            raise ClaspError(
                f"{address}: is no Milvus database. Give a path that ends in .db or a URL, http://host:19530"
            )
        return Address(str(Path(address).expanduser().absolute()), embedded=True)
    shown = re.sub(r"//.*@", "//***@", address)
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may repeat a piece of the password
        raise ClaspError(
            f"{shown}: is no URL. Give http://[user:password@]host:19530, and in a password %2F for a slash."
        ) from None
    names = [unquote(name) for name in parts.path.split("/") if name]
    if not host or len(names) > 2 or parts.query or parts.fragment or "@" in parts.path:
        raise ClaspError(f"{shown}: give http://[user:password@]host:19530[/database][/collection]")
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name):
            raise ClaspError(f"{shown}: {name!r} is no name in Milvus; use letters, digits and _, no digit first.")
    token = ":".join(unquote(part) for part in (parts.username, parts.password) if part)
    return Address(
        f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or 19530}",
        embedded=False,
        collection=names[-1] if names else COLLECTION,
        database=names[0] if len(names) == 2 else "",
        token=token or os.environ.get("MILVUS_TOKEN", ""),
    )


def opened(place: Address) -> Opened:
    """What is known of an embedded database; nothing for one on a server, which others change as well."""
    return _opened.get(place.uri, Opened())


@contextlib.contextmanager
def connected(place: Address, *, new: bool = False) -> Iterator[Any]:
    """A `pymilvus.MilvusClient`; after an error in the block it is closed and let go, else it stays open.

    Args:
        new: a database that is not there is made, with its folder.

    Raises:
        DatasetError: no such database, it is locked, or the server does not answer.
        MissingDependencyError: pymilvus or milvus-lite are not installed.
    """
    try:
        import pymilvus

        if place.embedded:
            import milvus_lite  # noqa: F401
    except ImportError as error:
        missing = "milvus-lite" if "milvus_lite" in str(error) else "pymilvus"
        raise MissingDependencyError(f"{missing} is not installed. Run: pip install 'clasp-lib[search]'") from error
    _hush()
    if place.embedded:
        _start(place, new)
    client = None
    try:
        options = {"token": place.token, "db_name": place.database, "grpc_options": _NO_PINGS}
        client = call(place, pymilvus.MilvusClient, place.uri, timeout=_CONNECT_S, **options)
        yield client
    except BaseException:
        disconnect(place, client)
        raise


def disconnect(place: Address, client: Any) -> None:
    """Close a connection, and an embedded database that nobody else in this process uses."""
    if client is not None:
        with contextlib.suppress(Exception):  # a server that is gone need not hear of it
            client.close()
    if not place.embedded:
        return
    from milvus_lite import server_manager_instance

    with _lock:
        there = _opened[place.uri]
        there.users -= 1
        if there.users == 0:
            server_manager_instance.release_server(place.uri)
            del _opened[place.uri]


def call(place: Address, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A call of the database.

    Raises:
        DatasetError: it fails; the message says where, why, and what to do.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    _thread.calls = True
    try:
        return function(*args, **options)
    except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise DatasetError(_explained(place, error)) from None  # its frames hold the token
    finally:
        _thread.calls = False


def _hush() -> None:
    """pymilvus logs each error that it raises, with its frames; for a call from here, the error is enough."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("pymilvus."):
            logging.getLogger(name).addFilter(_not_ours)


def _not_ours(record: logging.LogRecord) -> bool:
    return not getattr(_thread, "calls", False)


def _explained(place: Address, error: Exception) -> str:
    message = " ".join(str(getattr(error, "message", "") or error).split())[:500]
    if place.token:
        for secret in {place.token, place.token.partition(":")[2]} - {""}:
            message = message.replace(secret, "***")
    lower = message.lower()
    if any(word in lower for word in ("unauthenticated", "auth check", "permission", "privilege")):
        return f"{place}: the server refuses the user. Set MILVUS_TOKEN to user:password or a key. ({message})"
    if not place.embedded and any(word in lower for word in ("connect", "unavailable", "deadline", "timeout", "timed")):
        return f"{place}: no Milvus server answers. Check the address, and that the server is running. ({message})"
    if "unimplemented" in lower:
        return f"{place}: what answers there is not Milvus. Check the port; Milvus' own is 19530. ({message})"
    return f"{place}: Milvus fails: {message}"


def _start(place: Address, new: bool) -> None:
    from milvus_lite import DataDirLockedError, server_manager_instance

    path = Path(place.uri)
    if path.exists() and not path.is_dir():
        raise DatasetError(f"{place}: is a file; a database of Milvus Lite 3 is a folder. Choose another path.")
    if not path.exists() and not new:
        raise DatasetError(f"{place}: there is no such database. Build an index there first, or correct the path.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{place}: no database can be made there ({error}).") from error
    with _lock:
        if place.uri not in _opened:
            with _recorded("milvus_lite") as records:
                started = server_manager_instance.start_and_get_uri(place.uri)
            if started is None:
                reasons = [record.exc_info[1] for record in records if record.exc_info]
                if any(isinstance(reason, DataDirLockedError) for reason in reasons):
                    raise DatasetError(
                        f"{place}: another process has the database open, and Milvus Lite lets in one at a time. Close "
                        "it there; or let both use a server by its URL: `milvus-lite server --data-dir` and this path."
                    )
                reason = reasons[0] if reasons else "no reason given"
                raise DatasetError(f"{place}: the database cannot be opened ({reason}).")
            _opened[place.uri] = Opened()
        _opened[place.uri].users += 1


@contextlib.contextmanager
def _recorded(name: str) -> Iterator[list[logging.LogRecord]]:
    """Collect what a logger has to say, instead of showing it; for one thread at a time."""
    records: list[logging.LogRecord] = []
    logger, keep = logging.getLogger(name), logging.Handler()
    keep.emit = records.append  # type: ignore[method-assign, assignment]
    before = logger.propagate, list(logger.handlers)
    logger.propagate, logger.handlers = False, [keep]
    try:
        yield records
    finally:
        logger.propagate, logger.handlers = before
