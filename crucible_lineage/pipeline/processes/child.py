"""The program that calls functions of steps in a process of its own: many for runs, one for a result made again.

Requests and answers are JSON, answers in files. `serve` reads a request from each line of input, and writes a mark into
its output when the answer is there. `remake` answers one request. A kit runs it in the environment of a step, which may
lack what crucible-lineage needs: only `serve` imports more than the step's own packages and the standard library.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from types import CodeType, TracebackType
from typing import Any, TextIO

from crucible_lineage.errors import shortened
from crucible_lineage.fingerprint.values import ValueFaultError, plain_value
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.disk import replacing
from crucible_lineage.machine.opened import OpenedFiles, is_of_program, watch_files, watching
from crucible_lineage.machine.pictures import draw_returned, open_figures, shown_note
from crucible_lineage.pipeline.logs import LOG_FORMAT
from crucible_lineage.refs import Facts
from crucible_lineage.step import Step, shaped
from crucible_lineage.text.commands import filled_command, is_command, split_command

IDLE_S = 90.0  # chosen: after that an idle worker ends and frees its memory
MOST_ACCESSES = 8  # chosen: of one kind, named in an answer
LOOKING_UP = (os.__file__, "<frozen os>", sys.modules["_collections_abc"].__file__, "<frozen _collections_abc>")
METADATA_FILE = "metadata.json"  # what a command writes into {out} to be the child's metadata
FACTS_FILE = "facts.json"  # beside {out}; what {facts} stands for
MAX_PATHS = 100  # more do not help the reader of a message
MAX_NAMED = 3
_CACHES = ("~/.cache", "~/.config", "~/Library/Caches", "~/AppData/Local")
_CACHE_VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "MPLCONFIGDIR")  # the last one of matplotlib


def serve(mark: str) -> None:
    """Answer the requests of a run, each in the folder and the environment of the first one."""
    from crucible_lineage.pipeline.plan.inspect import compiling_source, find_step

    calls, output = _private_pipes()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LOG_FORMAT)
    folder, environment, process = Path.cwd(), dict(os.environ), os.getpid()
    with compiling_source():  # functions may import when they are called
        while select.select([calls], [], [], IDLE_S)[0] and (line := calls.readline()):
            call = json.loads(line)
            sys.path[:] = call["path"]
            find = partial(find_step, call["function"], Path(call["folder"]))
            answer = _answer(call, find, Path(call["answer"]).parent)
            if "error" in answer:
                with suppress(OSError, ValueError, AttributeError):
                    print(answer["trace"], file=sys.stderr)
            if os.getpid() != process:
                os._exit(0)  # the function forked and returned twice: only the first process answers
            answer["retire"] = not (_is_clean() and _prints_to(output))
            _restore(folder, environment)
            with replacing(Path(call["answer"])) as draft:
                draft.write_text(json.dumps(answer, default=str), encoding="utf-8")
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os.write(output, b"\0" + mark.encode() + b"\0")
            if answer["retire"]:
                break
    os._exit(0)  # even if the function has left threads


def remake(path: str) -> None:
    """Answer the request in a file, with what the step accessed without a record, and the environment.

    A failure of the step is in the answer.
    """
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    source, answered = request["source"], Path(request["answer"])
    work, variables = answered.parents[1], _watch_variables(os.path.join(source, ""))  # noqa: PTH118
    hosts: dict[str, None] = {}
    sys.addaudithook(partial(_note_host, hosts))
    with watching_files(work) as (_, read):
        if is_command(request["function"]):
            answer = _command(request)
        else:
            answer = _answer(request, partial(_step, request["function"]), work)
    seen = {"files": dict.fromkeys(map(str, (*read, *answer.get("read", ())))), "hosts": hosts}
    answer["seen"] = {kind: list(names)[:MOST_ACCESSES] for kind, names in (seen | {"variables": variables}).items()}
    answer["environment"] = _environment(request["packages"])
    if answer.get("file", "").startswith(source):
        answer["lacking"] = os.path.relpath(answer["file"], source)
    answered.write_text(json.dumps(answer, default=str), encoding="utf-8")


def _answer(call: JsonMapping, find: Callable[[], Step[..., Any]], own: Path) -> JsonObject:
    """Call a function; return what its call left, or its failure."""
    step = None
    try:
        step = find()
        return vars(outcome_of(step, call, own)) | {"outputs": step.outputs}
    except BaseException as error:
        return _failure(error, step.function if step else None)


def _failure(error: BaseException, function: Callable[..., object] | None = None) -> JsonObject:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    file = str(error.filename) if isinstance(error, FileNotFoundError) else ""
    trace = failure_traceback(error, function)
    return {"error": failure_line(error, function), "trace": trace, "missing": missing, "file": file}


def _private_pipes() -> tuple[TextIO, int]:
    """Return the streams of calls and marks, separate from the standard streams that functions use."""
    calls, output = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _standard_streams()
    return open(calls, encoding="utf-8", closefd=False), output


def _standard_streams() -> None:
    """Make standard output and error line-buffered, so that their lines keep their order."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _is_clean() -> bool:
    """Return whether the function has left no threads or processes that may write later."""
    if threading.active_count() > 1:
        return False
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        parent = os.getppid()  # its other children were left by forking twice
        with suppress(OSError):
            return len(Path(f"/proc/{parent}/task/{parent}/children").read_bytes().split()) <= 1
        return True
    return False


def _prints_to(output: int) -> bool:
    """Return whether standard output and error still lead to `output`, and not to files of the function."""
    try:
        return all(os.path.sameopenfile(descriptor, output) for descriptor in (1, 2))
    except OSError:
        return False


def _restore(folder: Path, environment: dict[str, str]) -> None:
    """Restore folder, environment and streams for the next function."""
    with suppress(OSError):
        os.chdir(folder)
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)
    if sys.stdout.closed or sys.stderr.closed:
        _standard_streams()


# A result that is made again


def _step(function: str) -> Step[..., Any]:
    module, _, name = function.partition(":")
    target = getattr(importlib.import_module(module), name)
    return target if isinstance(target, Step) else Step(target)


def _command(request: JsonMapping) -> JsonObject:
    """Run the command in a separate folder. Return the metadata that it wrote to metadata.json."""
    declared = split_command(request["function"])
    source, out = Path(request["source"]), Path(request["outputs"]["out"])
    filled = command_line(declared["run"], request, source)
    if re.fullmatch(r"python[\d.]*(\.exe)?", Path(filled[0]).name):
        filled[0] = sys.executable
    folder = out.parent / "work"
    folder.mkdir()
    try:
        subprocess.run(filled, cwd=folder, env={**os.environ, **declared["env"]}, check=True)  # noqa: S603
        return {"result": written_metadata(out), "outputs": ["out"]}
    except (OSError, subprocess.CalledProcessError, ReturnedError) as error:
        return _failure(error)


def _watch_variables(source: str) -> dict[str, None]:
    """Note from now on the variables of the environment that code in the folder `source` reads, by name."""
    names: dict[str, None] = {}

    def get_noted(self: Any, name: Any) -> Any:
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename in LOOKING_UP:
            frame = frame.f_back
        file = frame.f_code.co_filename
        if file.startswith(source) and "crucible_lineage" not in Path(file).parts:
            names[str(name)] = None
        return look_up(self, name)

    kind = type(os.environ)
    look_up = kind.__getitem__
    kind.__getitem__ = get_noted  # type: ignore[method-assign]
    return names


def _environment(packages: list[str]) -> JsonObject:
    """Return the parts of the environment that may affect results: of these packages the versions, all variables."""
    from crucible_lineage.provenance.environment import environment_document  # workers do without

    document = environment_document()
    versions = {name: document["packages"].get(name, {}).get("version") for name in packages}
    return {**document, "packages": versions, "variables": dict(os.environ)}


# What a call of a function leaves: its returned value or failure, and the files that it wrote or read.
#
# Python reports each file that it opens itself (`open`, `Path.write_text`, `numpy.savetxt`), in the thread that calls
# the function. Files opened by C libraries such as HDF5, or by programs, are not seen.


@dataclass(frozen=True)
class CallOutcome:
    """The value that a step returned, and the side effects of its call.

    `outside` are the files that it wrote outside of its folder, `left` is the number of processes that it left running,
    `code` the folder of the called function, `pictures` are the names of the figures that it returned, `read` the files
    that it read without being given them, `shown` is the note on figures that it drew and did not keep.
    """

    result: Any
    outside: tuple[Path, ...] = ()
    left: int = 0
    code: Path | None = None
    pictures: tuple[str, ...] = ()
    read: tuple[Path, ...] = ()
    shown: str = ""

    def read_note(self) -> str:
        """Return the note on files that it read without being given them."""
        return (
            f"it read {_named(self.read)}, which it was not given: other content there makes no new result; "
            "name it in `reads`, or give it as an input"
        )

    def note(self) -> str:
        """Return the note on files, figures and processes; empty if there are none."""
        notes = [self.read_note()] if self.read else []
        if self.shown:
            notes.append(self.shown)
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


def command_line(arguments: Iterable[str], call: JsonMapping, source: Path) -> list[str]:
    """Return a command with its fields filled in. The file of facts, which {facts} stands for, is beside {out}."""
    places = {"out": call["outputs"]["out"], "facts": Path(call["outputs"]["out"]).with_name(FACTS_FILE)}
    if call["facts"] is not None:
        places["facts"].write_text(json.dumps(call["facts"], indent=1, ensure_ascii=False), encoding="utf-8")
    inputs = {role: [path for _, path in files] for role, files in call["inputs"].items()}
    return filled_command(arguments, inputs, call["params"], places, source)


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


def outcome_of(step: Step[..., Any], call: JsonMapping, own: Path) -> CallOutcome:
    """Call a step's function, which may write into the folder `own`. Raises what it raises, and ReturnedError.

    `call` has the files of each input with the numbers of their datasets, the folders of the outputs that are asked
    for, the facts, and the parameters, which were checked when the call was planned.
    """
    shapes, params = {role.name: role.shape for role in step.inputs}, call["params"]
    inputs = {
        role: shaped(shapes[role], [(n, Path(path)) for n, path in call["inputs"][role]]) for role in call["inputs"]
    }
    folders = {name: Path(call["outputs"].get(name, own / f"not asked for {name}")) for name in step.outputs}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    figures = open_figures()
    with watching_files(own) as (written, read):
        facts = {step.facts: Facts.from_json(call["facts"])} if step.facts else {}
        values = {s.name: _converted(s.annotation, params[s.name]) for s in step.parameters if s.name in params}
        result = step.function(**inputs, **folders, **facts, **values)
        result, pictures = draw_returned(result, folders)
        plain = returned(result)
    code = _code(step.function)
    defined_in = Path(code.co_filename).parent if code else None
    shown = shown_note(figures, folders.values())
    return CallOutcome(plain, tuple(written), 0, defined_in, pictures, tuple(read), shown)


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
    watch_files()
    found, opened = (list[Path](), list[Path]()), OpenedFiles(())
    try:
        with watching(opened):
            yield found
    finally:
        caches = (*_CACHES, *filter(None, map(os.environ.get, _CACHE_VARIABLES)))
        known = [os.path.realpath(os.path.expanduser(folder)) for folder in (str(allowed), *caches)]  # noqa: PTH111
        found[0].extend(_outside(opened.wrote, [*known, os.path.realpath(tempfile.gettempdir())]))
        found[1].extend(_outside(opened.read - opened.added_to, known))


def _outside(names: Iterable[str], folders: Sequence[str]) -> list[Path]:
    """Return the files that are outside of these folders, and neither code nor those of system and packages."""
    places = tuple(f"{folder}{os.sep}" for folder in folders)
    paths = (Path(name) for name in sorted(names) if not name.startswith(places))  # of thousands, most are within
    files = (path for path in paths if path.is_file() and not is_of_program(path))
    return list(islice((path for path in files if not str(path.resolve()).startswith(places)), MAX_PATHS))


def _note_host(hosts: dict[str, None], event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo" and arguments[0]:
        host, port = (part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in arguments[:2])
        hosts[f"{host}:{port}"] = None


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
