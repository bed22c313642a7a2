"""A step in a process of its own, with a time limit: what hangs is killed with everything it started."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crucible_lineage.errors import StepError
from crucible_lineage.pipeline.bind.inspect import find_step, validated_params
from crucible_lineage.pipeline.bind.subprocess import run_limited
from crucible_lineage.pipeline.processes.failure import failure_line, failure_traceback, without_secrets
from crucible_lineage.pipeline.processes.outside import Called, watching_writes

__all__ = ["call_isolated", "main"]

TAIL_CHARACTERS = 2000


def call_isolated(
    name: str,
    uses: str,
    declared_in: Path,
    paths: Mapping[str, Any],
    params: Mapping[str, Any],
    attempt: Path,
    timeout_s: float,
) -> Called:
    """What the step returned and where it wrote. StepError if it failed, died, or took longer than `timeout_s`.

    `paths` may be in lists and mappings; `params` are JSON values, as they were given. What the step prints goes to
    `step.log` in the folder of the attempt; the call itself goes through a pipe, since a parameter may be a secret.
    """
    answer, log = attempt / "answer.json", attempt / "step.log"
    packed = {name: _packed(value) for name, value in paths.items()}
    call = {"uses": uses, "folder": str(declared_in), "paths": packed, "params": dict(params)}
    command = [sys.executable, "-m", "crucible_lineage.pipeline.processes.process", str(answer)]
    code = run_limited(command, log, timeout_s, name, said=json.dumps(call).encode())
    if not answer.exists():
        message = f"step {name!r} died ({_how(code)}); what it printed is in {log}{_tail(log)}"
        raise StepError(message, step=name, log=str(log))
    said = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in said:
        raise StepError(f"step {name!r} failed: {said['error']}; the traceback is in {log}", step=name, log=str(log))
    return Called(said["result"], tuple(map(Path, said["outside"])))


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _tail(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL_CHARACTERS))
        text = stream.read().decode(errors="replace").strip()
    return f": {text}" if text else ""


def _packed(value: Any) -> Any:
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, list) and value and isinstance(value[0], Path):
        return {"paths": [str(path) for path in value]}
    if isinstance(value, dict) and value and all(isinstance(path, Path) for path in value.values()):
        return {"named": {name: str(path) for name, path in value.items()}}
    raise TypeError(f"no path, nor a collection of them: {value!r}")


def _unpacked(packed: Mapping[str, Any]) -> Any:
    ((kind, value),) = packed.items()
    if kind == "path":
        return Path(value)
    if kind == "paths":
        return [Path(path) for path in value]
    return {name: Path(path) for name, path in value.items()} if kind == "named" else value


def main(answer: Path) -> None:
    """In the step's own process: call it, and write down what it returned or how it failed, whole or not at all."""
    call = json.loads(sys.stdin.buffer.read())
    paths = {name: _unpacked(packed) for name, packed in call["paths"].items()}
    step = None
    try:
        step = find_step(call["uses"], Path(call["folder"]))
        with watching_writes(answer.parent) as outside:
            result = step.function(**paths, **validated_params(step, call["params"]))
        told = {"result": result if not isinstance(result, Path) else None, "outside": list(map(str, outside))}
        said = json.dumps(told, allow_nan=False)
    except Exception as error:
        function = step.function if step else None
        trace, line = failure_traceback(error, function), failure_line(error, function)
        if step:
            trace, line = (without_secrets(text, step, call["params"]) for text in (trace, line))
        print(trace, file=sys.stderr)
        said = json.dumps({"error": line})
    part = answer.with_suffix(".part")
    part.write_text(said, encoding="utf-8")
    part.replace(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
