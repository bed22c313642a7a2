"""The program that calls functions of steps in a process of its own: many for runs, one for a result made again.

Requests and answers are JSON. `serve` reads a request from each line of input, and writes a mark into its output at the
end; the answer follows the mark if it fits into one atomic write, else it is in a file, complete or not at all.
`remake` answers the request in a file. A kit runs it in the environment of a step, which may lack what crucible-lineage
needs: only `serve` imports more than the step's own packages and the standard library.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.disk import replacing
from crucible_lineage.pipeline.logs import LOG_FORMAT
from crucible_lineage.pipeline.processes.side_files import (
    ReturnedError,
    asked_hosts,
    failure_line,
    failure_traceback,
    outcome_of,
    watching_files,
    written_metadata,
)
from crucible_lineage.provenance.environment import cpu, timezone
from crucible_lineage.refs import Facts
from crucible_lineage.step import Step, shaped
from crucible_lineage.text.commands import SHELL, filled_command, is_command, split_command

ATOMIC_BYTES = 4000  # writes of up to 4096 bytes to a pipe are atomic on Linux
MOST_ACCESSES = 8  # chosen: of one kind, named in an answer
LOOKING_UP = (os.__file__, "<frozen os>", sys.modules["_collections_abc"].__file__, "<frozen _collections_abc>")
BLAS = re.compile(r"lib[\w.-]*(?:openblas|mkl_rt|blis|flexiblas)[\w.-]*\.(?:so|dylib|dll)[\w.]*")


def serve(mark: str) -> None:
    """Answer the requests of a run, each in the folder and the environment of the first one."""
    from crucible_lineage.pipeline.plan.inspect import compiling_source, find_step

    calls, output = _private_pipes()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LOG_FORMAT)
    folder, environment, process = Path.cwd(), dict(os.environ), os.getpid()
    with compiling_source():  # functions may import when they are called
        while line := calls.readline():
            call = json.loads(line)
            sys.path[:] = call["path"]
            find = partial(find_step, call["uses"], Path(call["folder"]))
            answer = _answer(call, find, _given_paths, Path(call["answer"]).parent)
            if "error" in answer:
                with suppress(OSError, ValueError, AttributeError):
                    print(answer["trace"], file=sys.stderr)
            if os.getpid() != process:
                os._exit(0)  # the function forked and returned twice: only the first process answers
            answer["retire"] = not (_is_clean() and _prints_to(output))
            _restore(folder, environment)
            data = json.dumps(answer, default=str).encode()
            if len(data) > ATOMIC_BYTES:
                with replacing(Path(call["answer"])) as draft:
                    draft.write_bytes(data)
                data = b""
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os.write(output, b"\0" + mark.encode() + b"\0" + data + b"\0")
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
    with watching_files(work) as (_, read):
        if is_command(request["function"]):
            answer = _command(request)
        else:
            answer = _answer(request, partial(_step, request["function"]), _shaped_paths, work)
    seen = {"files": dict.fromkeys(map(str, (*read, *answer.get("read", ())))), "hosts": asked_hosts}
    answer["seen"] = {kind: list(names)[:MOST_ACCESSES] for kind, names in (seen | {"variables": variables}).items()}
    answer["environment"] = _environment(request["packages"])
    if answer.get("file", "").startswith(source):
        answer["lacking"] = os.path.relpath(answer["file"], source)
    answered.write_text(json.dumps(answer, default=str), encoding="utf-8")


PathsOf = Callable[[Step[..., Any], JsonMapping], JsonObject]


def _answer(call: JsonMapping, find: Callable[[], Step[..., Any]], paths_of: PathsOf, own: Path) -> JsonObject:
    """Call a function; return what its call left, or its failure."""
    step = None
    try:
        step = find()
        facts = None if call["facts"] is None else Facts.from_json(call["facts"])
        return vars(outcome_of(step, paths_of(step, call), facts, call["params"], own)) | {"outputs": step.outputs}
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


def _given_paths(_: Step[..., Any], call: JsonMapping) -> JsonObject:
    """Return what each input and output is given: a path, a list of paths, or paths by name."""
    return {name: _as_paths(given) for name, given in call["paths"].items()}


def _as_paths(given: Any) -> Any:
    if isinstance(given, str):
        return Path(given)
    return list(map(Path, given)) if isinstance(given, list) else {name: Path(path) for name, path in given.items()}


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


def _shaped_paths(step: Step[..., Any], request: JsonMapping) -> JsonObject:
    """Return the files of each input in its shape, and the folder of each output, whether it is asked for or not."""
    shapes, beside = {role.name: role.shape for role in step.inputs}, Path(request["answer"]).parent
    folders = {name: Path(request["outputs"].get(name, beside / f"not asked for {name}")) for name in step.outputs}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    inputs = request["inputs"].items()
    return {role: shaped(shapes[role], [(n, Path(path)) for n, path in files]) for role, files in inputs} | folders


def _command(request: JsonMapping) -> JsonObject:
    """Run the command in a separate folder. Return the metadata that it wrote to metadata.json."""
    declared = split_command(request["function"])
    arguments = (*SHELL, declared["run"]) if declared["shell"] else declared["run"]
    source, out = Path(request["source"]), Path(request["outputs"]["out"])
    places = {"out": out, "facts": Path(request["answer"]).with_name("facts.json")}
    if request["facts"] is not None:
        places["facts"].write_text(json.dumps(request["facts"], indent=1, ensure_ascii=False), encoding="utf-8")
    inputs = {role: [path for _, path in files] for role, files in request["inputs"].items()}
    filled = filled_command(arguments, inputs, request["params"], places, source, shell=declared["shell"])
    if not declared["shell"] and re.fullmatch(r"python[\d.]*(\.exe)?", Path(filled[0]).name):
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
    """Return the parts of the environment that may affect results."""
    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    loaded = ""
    with suppress(OSError):
        loaded = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu(),
        "packages": versions,
        "variables": dict(os.environ),
        "timezone": timezone(),
        "blas": sorted(set(BLAS.findall(loaded))),
    }
