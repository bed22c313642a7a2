"""In a worker: calls a function for each line that it reads, and says by a mark in its output that it has ended.

What came of it follows the mark if one write takes it, which nothing else can come between; else it is in a file, whole
or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from crucible_lineage.facts import Facts
from crucible_lineage.pipeline.functions.inspect import compiling_source, find_step, validated_params
from crucible_lineage.pipeline.logs import LOG_FORMAT
from crucible_lineage.pipeline.processes.failure import failure_line, failure_traceback
from crucible_lineage.pipeline.processes.file_accesses import get_ready, watching_folders
from crucible_lineage.pipeline.processes.side_files import (
    code_folder,
    draw_returned,
    not_code,
    not_installed,
    returned,
    watching_files,
)

AT_ONCE_BYTES = 4000  # a pipe takes 4096 at once on Linux


def main(mark: str) -> None:
    calls, output = _private_pipes()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LOG_FORMAT)
    folder, environment, process = Path.cwd(), dict(os.environ), os.getpid()
    get_ready()
    with compiling_source():  # functions may import when they are called
        while line := calls.readline():
            call = json.loads(line)
            sys.path[:] = call["path"]
            answer = _answer(call)
            if os.getpid() != process:
                os._exit(0)  # the function has forked and come back twice: the first process alone answers
            answer["retire"] = not (_is_clean() and _prints_there(output))
            _restore(folder, environment)
            said = json.dumps(answer).encode()
            if len(said) > AT_ONCE_BYTES:
                _write(Path(call["answer"]), said)
                said = b""
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os.write(output, b"\0" + mark.encode() + b"\0" + said + b"\0")
            if answer["retire"]:
                break
    os._exit(0)  # whatever threads the function has left


def _private_pipes() -> tuple[TextIO, int]:
    """Where calls come from and marks go to, which a function cannot take for its own input and output."""
    calls, output = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _standard_streams()
    return open(calls, encoding="utf-8", closefd=False), output


def _standard_streams() -> None:
    """Standard output and error are told line by line, in the order in which they are written."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _answer(call: Mapping[str, Any]) -> dict[str, Any]:
    paths = {name: _unpacked(packed) for name, packed in call["paths"].items()}
    step = None
    try:
        step = find_step(call["uses"], Path(call["folder"]))
        own, code = Path(call["answer"]).parent, code_folder(step.function)
        with watching_folders(not_installed(code, Path(call["folder"])), own) as opened, watching_files(own) as watched:
            facts = {} if call["facts"] is None else {step.facts: Facts.from_json(call["facts"])}
            result = step.function(**paths, **facts, **validated_params(step, call["params"]))
            result, pictures = draw_returned(result, {name: paths[name] for name in step.outputs})
        found: dict[str, Any] = {"outside": list(map(str, watched.written)), "read": list(map(str, watched.read))}
        found |= {"opened": list(map(str, not_code(opened, [*watched.read, *watched.written])))}
        found |= {"code": code and str(code), "pictures": pictures}
        return {"result": returned(result), **found}
    except BaseException as error:
        function = step.function if step else None
        trace, line = failure_traceback(error, function), failure_line(error, function)
        with suppress(OSError, ValueError, AttributeError):
            print(trace, file=sys.stderr)
        return {"error": line, "trace": trace}


def _unpacked(packed: Mapping[str, Any]) -> Any:
    ((kind, value),) = packed.items()
    if kind == "path":
        return Path(value)
    if kind == "paths":
        return [Path(path) for path in value]
    return {name: Path(path) for name, path in value.items()} if kind == "named" else value


def _is_clean() -> bool:
    """True if the function has left neither threads nor processes that may write later."""
    if threading.active_count() > 1:
        return False
    if os.name == "nt":
        return True
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return _siblings() <= 1
    return False


def _prints_there(output: int) -> bool:
    """True if standard output and error are what they were: else the next function might print into its files."""
    try:
        return all(os.path.sameopenfile(descriptor, output) for descriptor in (1, 2))
    except OSError:
        return False


def _siblings() -> int:
    """Count the supervisor's children: this process, and what a function has left by forking twice."""
    parent = os.getppid()
    try:
        return len(Path(f"/proc/{parent}/task/{parent}/children").read_bytes().split())
    except OSError:
        return 1


def _restore(folder: Path, environment: dict[str, str]) -> None:
    """The next function finds what the first one found."""
    with suppress(OSError):
        os.chdir(folder)
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)
    if sys.stdout.closed or sys.stderr.closed:
        _standard_streams()


def _write(path: Path, answer: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(answer)
    part.replace(path)
