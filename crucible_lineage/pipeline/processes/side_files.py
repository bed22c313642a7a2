"""What a call of a step's function leaves: its returned value or failure, and the files that it wrote or read.

Python reports each file that it opens itself (`open`, `Path.write_text`, `numpy.savetxt`), in the thread that calls
the function. Files opened by C libraries such as HDF5, or by programs, are not seen.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import shortened
from crucible_lineage.fingerprint.values import ValueFaultError, plain_value
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.machine.pictures import draw_returned
from crucible_lineage.refs import Facts
from crucible_lineage.step import Step

if TYPE_CHECKING:  # workers do without declarations
    from crucible_lineage.pipeline.declare.pipeline import StepSpec

METADATA_FILE = "metadata.json"  # what a command writes into {out} to be the child's metadata
MAX_PATHS = 100  # more do not help the reader of a message
_WRITES = os.O_WRONLY | os.O_RDWR

MAX_NAMED = 3
_CODE = (".py", ".pyc", ".pyi", ".so", ".pyd", ".dll", ".pth")  # files that imports read
# Folders of the system, of Python and of its packages.
_SYSTEM = tuple(os.path.join(path, "") for path in dict.fromkeys((  # noqa: PTH118 (compared as text, at each opening)
    sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix,
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    "/usr", "/etc", "/proc", "/sys", "/lib", "/lib64", "/bin",
)))  # fmt: skip
_watched: ContextVar[tuple[dict[str, None], dict[str, None]] | None] = ContextVar("watched", default=None)
_hooked = False
asked_hosts: dict[str, None] = {}  # since files are watched
_CACHES = ("~/.cache", "~/.config", "~/Library/Caches", "~/AppData/Local")
_CACHE_VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "MPLCONFIGDIR")  # the last one of matplotlib


@dataclass(frozen=True)
class ProcessCall:
    """A call of a step's function or command, as declared: paths by role and output, parameters and declared facts.

    A function depends on source `files`; a command gets the variables `env`.
    """

    name: str
    spec: StepSpec
    paths: JsonMapping
    params: JsonMapping
    facts: Facts | None = None
    files: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""


@dataclass(frozen=True)
class CallOutcome:
    """The value that a step returned, and the side effects of its call.

    `outside` are the files that it wrote outside of its folder, `left` is the number of processes that it left running,
    `code` the folder of the called function, `pictures` are the names of the figures that it returned, `read` the files
    that it read without being given them.
    """

    result: Any
    outside: tuple[Path, ...] = ()
    left: int = 0
    code: Path | None = None
    pictures: tuple[str, ...] = ()
    read: tuple[Path, ...] = ()

    def read_note(self) -> str:
        """Return the note on files that it read without being given them."""
        return (
            f"it read {_named(self.read)}, which it was not given: other content there makes no new result; "
            "name it in `reads`, or give it as an input"
        )

    def note(self) -> str:
        """Return the note on files and processes; empty if there are none."""
        notes = [self.read_note()] if self.read else []
        if self.outside:
            written = _named(self.outside, 1)
            notes.append(f"it wrote {written}, outside of its folder; that is not part of its result")
        if self.left:
            count = "1 process running, which was" if self.left == 1 else f"{self.left} processes running, which were"
            notes.append(f"it left {count} ended")
        return "; ".join(notes)


def _named(paths: Sequence[Path], most: int = MAX_NAMED) -> str:
    return shortened(list(map(str, paths)), most)


class ReturnedError(TypeError):
    """A returned value cannot be metadata; the message names the value."""


def returned(result: object) -> dict[str, object] | None:
    """Convert a step's return value to plain JSON: a mapping, or None, also for a path."""
    if result is None or isinstance(result, PurePath):  # functions often return where they wrote
        return None
    try:
        plain = plain_value(result, "")
    except ValueFaultError as fault:
        subject = f"the value {fault.path.removeprefix('.')!r} that it returned" if fault.path else "what it returned"
        raise ReturnedError(f"{subject} {fault.reason}") from None
    if not isinstance(plain, dict):
        raise ReturnedError(f"it returned a {type(result).__name__}; return a mapping of metadata, or None")
    return plain


def written_metadata(out: Path) -> dict[str, object]:
    """Return the metadata that a command wrote into its folder, and remove that file, which is none of the result."""
    path = out / METADATA_FILE
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReturnedError(f"it wrote a {METADATA_FILE} that is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise ReturnedError(f"it wrote a {METADATA_FILE} that is not a JSON object")
    plain = returned(metadata)
    path.unlink()
    return plain or {}


def outcome_of(
    step: Step[..., Any], paths: JsonMapping, facts: Facts | None, params: JsonMapping, own: Path
) -> CallOutcome:
    """Call a step's function, which may write into the folder `own`. Raises what it raises, and ReturnedError.

    The parameters were checked when the call was planned.
    """
    with watching_files(own) as (written, read):
        given = {step.facts: facts} if step.facts else {}
        values = {s.name: _converted(s.annotation, params[s.name]) for s in step.parameters if s.name in params}
        result = step.function(**paths, **given, **values)
        result, pictures = draw_returned(result, {name: paths[name] for name in step.outputs})
        plain = returned(result)
    code = _code(step.function)
    folder = Path(code.co_filename).parent if code else None
    return CallOutcome(plain, tuple(written), code=folder, pictures=pictures, read=tuple(read))


def _converted(annotation: Any, value: Any) -> Any:
    """Return a parameter with the type of the function's annotation; as it is if nothing here can convert it."""
    if annotation is inspect.Parameter.empty or type(value) is annotation or value is None:
        return value
    try:
        from pydantic import TypeAdapter  # the environment of a step that is made again may lack it
    except ImportError:
        return annotation(value) if isinstance(annotation, type) else value
    try:
        return TypeAdapter(annotation).validate_python(value)
    except Exception:  # a class that pydantic cannot check
        return value


@contextmanager
def watching_files(allowed: Path) -> Iterator[tuple[list[Path], list[Path]]]:
    """Yield lists of files outside of `allowed`: those written in the block, and those read and not written before.

    Temporary files, caches and those of system and packages are left out.
    """
    global _hooked
    if not _hooked:  # cannot be removed
        _hooked = True
        sys.addaudithook(_note)
    found, written, read = (list[Path](), list[Path]()), dict[str, None](), dict[str, None]()
    token = _watched.set((written, read))
    try:
        yield found
    finally:
        _watched.reset(token)
        caches = (*_CACHES, *(os.environ.get(name, "") for name in _CACHE_VARIABLES))
        ignored = [Path(os.path.expanduser(path)).resolve() for path in (str(allowed), *caches) if path]  # noqa: PTH111
        temporary = Path(tempfile.gettempdir()).resolve()
        for paths, listed, folders in (
            (written, found[0], [*ignored, temporary]),
            (read, found[1], ignored),
        ):
            for path in map(Path, paths):
                if not any(path.resolve().is_relative_to(folder) for folder in folders) and path.is_file():
                    listed.append(path)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo" and arguments[0]:
        host, port = (part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in arguments[:2])
        asked_hosts[f"{host}:{port}"] = None
    if event != "open" or (opened := _watched.get()) is None:
        return
    written, read = opened
    path, _, flags = arguments
    if not isinstance(path, (str, bytes)) or not isinstance(flags, int):
        return
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - resolving would ask the disk at each opening
    if flags & _WRITES:
        if "__pycache__" not in name and len(written) < MAX_PATHS:
            written[name] = None
    elif len(read) < MAX_PATHS and not (
        name.startswith(_SYSTEM) or name.endswith(_CODE) or "site-packages" in name or name in written
    ):
        read[name] = None


def failure_line(error: BaseException, function: Callable[..., object] | None) -> str:
    """Return the error with the last line of the function's file that led to it, as in `no lamp, at steps.py:12`."""
    code = _code(function)
    if isinstance(error, ReturnedError) and code is not None:
        return f"{error}, in {Path(code.co_filename).name}:{code.co_firstlineno}"
    frames = traceback.extract_tb(error.__traceback__)
    file = _file(function)
    own = next((frame for frame in reversed(frames) if frame.filename == file), None)
    return _message(error) + (f", at {Path(own.filename).name}:{own.lineno}" if own else "")


def failure_traceback(error: BaseException, function: Callable[..., object] | None) -> str:
    """Return the traceback, starting at the function; empty if only the returned value is wrong."""
    if isinstance(error, ReturnedError):
        return ""
    file = _file(function)
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != file:
        start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start or error.__traceback__))


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)}); a step ends by returning"
    if isinstance(error, ReturnedError):
        return str(error)
    try:
        text = str(error)
    except Exception:  # the class may be the step's own
        text = "its message cannot be shown"
    if isinstance(error, MemoryError) and not text:
        return "MemoryError: there was not enough memory"
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _file(function: Callable[..., object] | None) -> str | None:
    code = _code(function)
    return code.co_filename if code else None


def _code(function: Callable[..., object] | None) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None) if function else None
