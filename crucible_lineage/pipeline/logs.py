"""What steps print, and faults of ours: heard, bounded, kept, with secrets blotted out in every spelling."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Self, TextIO
from urllib.parse import quote, quote_plus

from crucible_lineage.disk import private_file, private_folder, storage_error
from crucible_lineage.errors import LineageError

BLOT = "***"
LEAST_ENCODED = 4  # characters; what is shorter has encodings that are everywhere


# Ours and Prefect's: what a step may find in its environment and has no business to show.
_OWN = ("CRUCIBLE_API_KEY", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")


STEP_LOG = "step.log"  # what the step printed; it becomes a file of the child
LOG_LIMIT_BYTES = 1 << 20  # half of it for the beginning, half for the end
MOST_HEARD_BYTES = 1 << 16  # of a line

Hear = Callable[[str], None]

_hearers: list[Callable[[str, str], None]] = []


LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"

_keep: ContextVar[Callable[[bytes], None] | None] = ContextVar("keep", default=None)


FOLDER = "logs"  # in the data folder
MOST_KEPT = 100  # files


def own_secrets(*keys: str | None) -> list[str]:
    """Return these keys, and those in the environment that give access to Crucible and Prefect."""
    return [key for key in (*keys, *(os.environ.get(name) for name in _OWN)) if key]


class Redactor:
    """Knows the spellings of some secrets: as they are, in base64, quoted as in addresses, in JSON, in hexadecimal."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings = {form for secret in set(secrets) if secret for form in _spellings(secret)}
        texts = sorted(spellings, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._encoded = tuple(text.encode(errors="surrogatepass") for text in texts)
        self._bytes = re.compile(b"|".join(map(re.escape, self._encoded))) if texts else None

    def __bool__(self) -> bool:
        return self._text is not None

    def text(self, text: str) -> str:
        """The text without any of the secrets."""
        return self._text.sub(BLOT, text) if self._text else text

    def data(self, data: bytes, *, last: bool = True) -> tuple[bytes, bytes]:
        """The bytes without any of the secrets, and the rest that has to stand before what comes next.

        That is empty for the `last` ones; else it is what may be the beginning of a secret.
        """
        if self._bytes is None:
            return data, b""
        blotted = self._bytes.sub(BLOT.encode(), data)
        if last:
            return blotted, b""
        keep = next((size for size in range(self._most(blotted), 0, -1) if self._may_begin(blotted[-size:])), 0)
        return blotted[: len(blotted) - keep], blotted[len(blotted) - keep :]

    def _most(self, data: bytes) -> int:
        return min(len(data), max(map(len, self._encoded)) - 1)

    def _may_begin(self, end: bytes) -> bool:
        return any(spelling.startswith(end) for spelling in self._encoded)


def _spellings(secret: str) -> Iterable[str]:
    yield secret
    if len(secret) < LEAST_ENCODED:
        return
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret))
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    yield repr(secret)[1:-1]
    raw = secret.encode(errors="surrogateescape")
    yield from (raw.hex(), raw.hex().upper())
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterable[str]:
    """Yield the parts of the secret's base64 that do not depend on what surrounds it, as in `user:secret`."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")
        for before in range(3):
            text = encode(bytes(before) + raw).decode().rstrip("=")
            certain = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
            if len(certain) >= LEAST_ENCODED:
                yield certain


@contextmanager
def hearing_steps(hear: Callable[[str, str], None]) -> Iterator[None]:
    """`hear` is told the lines that steps print in this process meanwhile: whose, and which."""
    _hearers.append(hear)
    try:
        yield
    finally:
        _hearers.remove(hear)


def are_steps_heard() -> bool:
    """True if somebody in this process wants to hear what steps print."""
    return bool(_hearers)


def hear_steps(step: str, line: str) -> None:
    """Whoever hears steps in this process is told the line."""
    for hear in list(_hearers):
        hear(step, line)


class StepLog:
    """Takes bytes, in any thread. `hear` is called with each line, without its end.

    There is a file as soon as there is something to be written: most steps print nothing.
    """

    def __init__(self, path: Path, blotter: Redactor | None = None, hear: Hear | None = None) -> None:
        self.path = path
        self.blotter = blotter or Redactor()
        self.size = 0
        self._hear = hear
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._is_closed = False
        self._room, self._left_out, self._held = LOG_LIMIT_BYTES // 2, 0, 0
        self._tail: deque[bytes] = deque()
        self._unsure = b""  # may be the beginning of a secret
        self._line = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Add output of the step."""
        with self._lock:
            if self._is_closed:  # by one that its step had left behind
                return
            sure, self._unsure = self.blotter.data(self._unsure + data, last=False)
            self._keep(sure)

    def close(self) -> None:
        """Complete the file: beginning, the size of what was left out, end."""
        with self._lock:
            if self._is_closed:
                return
            self._keep(self.blotter.data(self._unsure)[0])
            if self._line:
                self._tell(self._line)
            if self._left_out:
                self._write(f"\n[... {self._left_out} bytes are left out here ...]\n".encode())
            self._write(b"".join(self._tail))
            self._is_closed = True
            if self._file is not None:
                self._file.close()

    def text(self, most: int = LOG_LIMIT_BYTES) -> str:
        """The end of it, at `most` so many bytes."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as stream:
            stream.seek(max(0, self.path.stat().st_size - most))
            return stream.read().decode(errors="replace").strip()

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self._hear and data:
            self._tell_lines(data)
        if self._room and data:
            self._write(data[: self._room])
            self._room, data = max(0, self._room - len(data)), data[self._room :]
        if data:
            self._tail.append(data)
            self._held += len(data)
            while self._held - len(self._tail[0]) >= LOG_LIMIT_BYTES // 2:
                self._held -= len(self._tail[0])
                self._left_out += len(self._tail.popleft())

    def _write(self, data: bytes) -> None:
        """On a full disk the log ends early; the step's own files, which it needs room for as well, tell of that."""
        with suppress(OSError):
            if self._file is None and data:
                self._file = self.path.open("wb", buffering=0)
            if self._file is not None:
                self._file.write(data)

    def _tell_lines(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > MOST_HEARD_BYTES:
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        assert self._hear is not None
        with suppress(Exception):  # that nobody can be told is no fault of the step
            self._hear(line.decode(errors="replace").rstrip("\r"))


@contextmanager
def keeping_prints(keep: Callable[[bytes], None]) -> Iterator[None]:
    """`keep` is given what is printed and logged in this block, in this thread and what inherits its context.

    What goes around Python's `sys.stdout` and `sys.stderr`, as C libraries and other programs do, is not seen.
    """
    _install()
    token = _keep.set(keep)
    try:
        yield
    finally:
        _keep.reset(token)


def _install() -> None:
    """The streams of this process, and its logging, tell what is printed where it is asked for. Done once for each."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Copied):
            setattr(sys, name, _Copied(stream))
    root = logging.getLogger()
    if not any(isinstance(handler, _Kept) for handler in root.handlers):
        root.addHandler(_Kept(logging.INFO))


class _Copied:
    """A stream, and a copy of what is written to it for whoever keeps prints where it is written.

    No subclass of Python's streams: those are closed when nobody has them any more, and this one is not to be.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        if keep := _keep.get():
            keep(text.encode(errors="backslashreplace"))
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Kept(logging.Handler):
    """Takes what libraries and steps log, where prints are kept."""

    def emit(self, record: logging.LogRecord) -> None:
        if keep := _keep.get():
            text = logging.Formatter(LOG_FORMAT).format(record)
            keep(text.encode(errors="backslashreplace") + b"\n")


@dataclass(frozen=True)
class UnforeseenFault:
    """What is told of an error that nobody has foreseen, and the file with its traceback, if that could be written."""

    message: str
    log: Path | None


def told_fault(error: BaseException, data: Path, *keys: str | None) -> UnforeseenFault:
    """The fault, its traceback in a file of the data folder; neither has the `keys` in it.

    If the file cannot be written, the traceback stands in the message. What the disk refuses is no fault of ours.
    """
    if isinstance(error, OSError) and (refused := storage_error(error)) is not None:
        return UnforeseenFault(str(refused), None)
    blotter = Redactor(own_secrets(*keys))
    trace = blotter.text("".join(traceback.format_exception(error)))
    line = blotter.text(f"{type(error).__name__}: {error}".removesuffix(": "))
    message = f"{line}; this is a fault of crucible-lineage, please report it"
    try:
        log = _kept(trace, data)
    except (OSError, LineageError):
        return UnforeseenFault(f"{message}; its traceback:\n{trace}", None)
    return UnforeseenFault(f"{message}; its traceback is in {log}", log)


def _kept(trace: str, data: Path) -> Path:
    folder = private_folder(data / FOLDER)
    for old in sorted(folder.glob("fault-*.log"))[: -MOST_KEPT + 1]:
        with suppress(OSError):
            old.unlink()
    path = folder / f"fault-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.log"
    private_file(path).write_text(trace, encoding="utf-8", errors="backslashreplace")
    return path
