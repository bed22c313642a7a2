"""The main loop of a worker: call a function for each line of input, and write a mark into its output at the end.

The answer follows the mark if it fits into one atomic write; else it is in a file, complete or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.disk import replacing
from crucible_lineage.pipeline.logs import LOG_FORMAT
from crucible_lineage.pipeline.plan.inspect import compiling_source, find_step
from crucible_lineage.pipeline.processes.side_files import failure_line, failure_traceback, outcome_of
from crucible_lineage.refs import Facts

ATOMIC_BYTES = 4000  # writes of up to 4096 bytes to a pipe are atomic on Linux


def main(mark: str) -> None:
    calls, output = _private_pipes()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LOG_FORMAT)
    folder, environment, process = Path.cwd(), dict(os.environ), os.getpid()
    with compiling_source():  # functions may import when they are called
        while line := calls.readline():
            call = json.loads(line)
            sys.path[:] = call["path"]
            answer = _answer(call)
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


def _answer(call: JsonMapping) -> JsonObject:
    paths = {name: _as_paths(given) for name, given in call["paths"].items()}
    step = None
    try:
        step = find_step(call["uses"], Path(call["folder"]))
        facts = None if call["facts"] is None else Facts.from_json(call["facts"])
        outcome = outcome_of(step, paths, facts, call["params"], Path(call["answer"]).parent)
        return dict(vars(outcome))
    except BaseException as error:
        function = step.function if step else None
        trace, line = failure_traceback(error, function), failure_line(error, function)
        with suppress(OSError, ValueError, AttributeError):
            print(trace, file=sys.stderr)
        return {"error": line, "trace": trace}


def _as_paths(given: Any) -> Any:
    """Return a path, a list of paths, or paths by name."""
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
