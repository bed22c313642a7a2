"""Logs of what steps print, and of unexpected errors: bounded, with secrets redacted in every encoding."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Self
from urllib.parse import quote, quote_plus

from crucible_lineage.disk import private_file, private_folder, storage_error
from crucible_lineage.errors import LineageError

BLOT = "***"
MIN_ENCODED = 4  # characters; encodings of shorter secrets occur everywhere


# Keys of Crucible and Prefect that a step may find in its environment and must not print.
_OWN = ("CRUCIBLE_API_KEY", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")


STEP_LOG = "step.log"  # what the step printed; it becomes a file of the child
LOG_LIMIT_BYTES = 1 << 20  # half of it for the beginning, half for the end
TAIL_BYTES = 2000
MAX_LINE_BYTES = 1 << 16  # longer lines are reported in parts

LineCallback = Callable[[str], None]

_listeners: list[Callable[[str, str], None]] = []


LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"

FOLDER = "logs"  # in the data folder
MAX_FILES = 100


def own_secrets(*keys: str | None) -> list[str]:
    """Return these keys, and the keys of Crucible and Prefect in the environment."""
    return [key for key in (*keys, *(os.environ.get(name) for name in _OWN)) if key]


class Redactor:
    """Replaces secrets in texts: as they are, in base64, quoted as in addresses, in JSON, in hexadecimal."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings = {form for secret in set(secrets) if secret for form in _spellings(secret)}
        texts = sorted(spellings, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._encoded = tuple(text.encode(errors="surrogatepass") for text in texts)
        self._bytes = re.compile(b"|".join(map(re.escape, self._encoded))) if texts else None

    def __bool__(self) -> bool:
        return self._text is not None

    def text(self, text: str) -> str:
        """Return the text without the secrets."""
        return self._text.sub(BLOT, text) if self._text else text

    def data(self, data: bytes, *, last: bool = True) -> tuple[bytes, bytes]:
        """Return the bytes without the secrets, and the rest, to be put before the next bytes.

        The rest may be the beginning of a secret; it is empty for the `last` bytes.
        """
        if self._bytes is None:
            return data, b""
        redacted = self._bytes.sub(BLOT.encode(), data)
        if last:
            return redacted, b""
        keep = next((size for size in range(self._most(redacted), 0, -1) if self._may_begin(redacted[-size:])), 0)
        return redacted[: len(redacted) - keep], redacted[len(redacted) - keep :]

    def _most(self, data: bytes) -> int:
        return min(len(data), max(map(len, self._encoded)) - 1)

    def _may_begin(self, end: bytes) -> bool:
        return any(spelling.startswith(end) for spelling in self._encoded)


def _spellings(secret: str) -> Iterable[str]:
    yield secret
    if len(secret) < MIN_ENCODED:
        return
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret))
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    yield repr(secret)[1:-1]
    raw = secret.encode(errors="surrogateescape")
    yield from (raw.hex(), raw.hex().upper())
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterable[str]:
    """Yield the parts of the secret's base64 that do not depend on the bytes around it, as in `user:secret`."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")
        for before in range(3):
            text = encode(bytes(before) + raw).decode().rstrip("=")
            certain = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
            if len(certain) >= MIN_ENCODED:
                yield certain


@contextmanager
def listening_to_steps(listener: Callable[[str, str], None]) -> Iterator[None]:
    """Call `listener(step, line)` for each line that steps report in this process during the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def publish_line(step: str, line: str) -> None:
    """Pass a line that a step printed to the listeners in this process."""
    for listener in list(_listeners):
        listener(step, line)


class StepLog:
    """The log of a step, which accepts bytes in any thread. `on_line` receives each line, without its end.

    The file is created with the first bytes: most steps print nothing.
    """

    def __init__(self, path: Path, redactor: Redactor | None = None, on_line: LineCallback | None = None) -> None:
        self.path = path
        self.redactor = redactor or Redactor()
        self.size = 0
        self._on_line = on_line
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
            if self._is_closed:  # written by a process that the step left behind
                return
            sure, self._unsure = self.redactor.data(self._unsure + data, last=False)
            self._keep(sure)

    def close(self) -> None:
        """Complete the file: beginning, the size of what was left out, end."""
        with self._lock:
            if self._is_closed:
                return
            self._keep(self.redactor.data(self._unsure)[0])
            if self._line:
                self._report(self._line)
            if self._left_out:
                self._write(f"\n[... {self._left_out} bytes are left out here ...]\n".encode())
            self._write(b"".join(self._tail))
            self._is_closed = True
            if self._file is not None:
                self._file.close()

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self._on_line and data:
            self._report_lines(data)
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
        """Write to the file. On a full disk the log ends early; writing the step's own files reports that."""
        with suppress(OSError):
            if self._file is None and data:
                self._file = self.path.open("wb", buffering=0)
            if self._file is not None:
                self._file.write(data)

    def _report_lines(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > MAX_LINE_BYTES:
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._report(line)

    def _report(self, line: bytes) -> None:
        assert self._on_line is not None
        with suppress(Exception):  # a failing callback does not fail the step
            self._on_line(line.decode(errors="replace").rstrip("\r"))


def tail_of(log: Path) -> str:
    """Return the end of a log, for messages; empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return stream.read().decode(errors="replace").strip()


@dataclass(frozen=True)
class UnforeseenFault:
    """The message for an unexpected error, and the file with its traceback, if that could be written."""

    message: str
    log: Path | None


def record_fault(error: BaseException, data: Path, *keys: str | None) -> UnforeseenFault:
    """Write the traceback to a file of the data folder and return the message, both without the `keys`.

    If the file cannot be written, the message has the traceback. A refusal by the disk is reported as such.
    """
    if isinstance(error, OSError) and (refused := storage_error(error)) is not None:
        return UnforeseenFault(str(refused), None)
    redactor = Redactor(own_secrets(*keys))
    trace = redactor.text("".join(traceback.format_exception(error)))
    line = redactor.text(f"{type(error).__name__}: {error}".removesuffix(": "))
    message = f"{line}; this is a fault of crucible-lineage, please report it"
    try:
        log = _write_trace(trace, data)
    except (OSError, LineageError):
        return UnforeseenFault(f"{message}; its traceback:\n{trace}", None)
    return UnforeseenFault(f"{message}; its traceback is in {log}", log)


def _write_trace(trace: str, data: Path) -> Path:
    folder = private_folder(data / FOLDER)
    for old in sorted(folder.glob("fault-*.log"))[: -MAX_FILES + 1]:
        with suppress(OSError):
            old.unlink()
    path = folder / f"fault-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.log"
    private_file(path).write_text(trace, encoding="utf-8", errors="backslashreplace")
    return path
