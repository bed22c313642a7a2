"""A step that is a command: `run: fit --in {inputs.spectrum} --degree {params.degree} --out {out}`.

The text is split into arguments first and filled in afterwards, and no shell sees it: whatever a file is called, it
stays one argument. Names of files beside the declaration count as scripts: their content belongs to the identity. Of
the environment a command is given a few variables that programs need to run, and those that the step declares.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.errors import InputError, StepError
from crucible_lineage.fingerprint.params import canonical_params
from crucible_lineage.hashing import file_sha256
from crucible_lineage.ids import canonical_json
from crucible_lineage.pipeline.bind.inspection import Inspection
from crucible_lineage.pipeline.bind.subprocess import run_limited

__all__ = [
    "COMMAND",
    "LOG_FILE",
    "METADATA_FILE",
    "CommandCall",
    "arguments_of",
    "call_command",
    "inspect_command",
    "split_command",
]

METADATA_FILE = "metadata.json"  # written into {out}, it becomes the child's metadata and is no file of it
COMMAND = "run: "  # before the text of a command, where a function would be named
LOG_FILE = "step.log"  # what the command printed; it becomes a file of the child
# What programs need to run at all; keys and other secrets of ours are not among them.
PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH"),
    *("DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH", "SYSTEMROOT", "WINDIR"),
    *("COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "USERPROFILE"),
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_FIELD = re.compile(r"\{([^{}]*)\}")


def arguments_of(run: str | Sequence[str]) -> tuple[str, ...]:
    """The command as a list of arguments. InputError if its quotes do not match or it is empty."""
    try:
        arguments = tuple(shlex.split(run)) if isinstance(run, str) else tuple(run)
    except ValueError as error:
        raise InputError(f"the command {run!r} cannot be split into arguments: {error}") from error
    if not arguments:
        raise InputError("the command is empty")
    return arguments


def split_command(uses: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables and arguments of a command, as a record names it: `run: NAME=value program argument`."""
    arguments = shlex.split(uses.removeprefix(COMMAND))
    count = next((n for n, part in enumerate(arguments) if not _ASSIGNMENT.match(part)), len(arguments))
    variables = {name: value for name, _, value in (part.partition("=") for part in arguments[:count])}
    return variables, tuple(arguments[count:])


def inspect_command(
    name: str,
    run: str | Sequence[str],
    roles: Mapping[str, str],
    params: Mapping[str, Any],
    folder: Path,
    env: Mapping[str, str],
) -> Inspection:
    """The command as a step: its placeholders checked; its template, scripts and variables as its fingerprint."""
    arguments = arguments_of(run)
    allowed = {"out", *(f"inputs.{role}" for role in roles), *(f"params.{key}" for key in params)}
    fields = [field for argument in arguments for field in _FIELD.findall(argument)]
    for field in fields:
        if field not in allowed:
            possible = ", ".join(f"{{{name}}}" for name in sorted(allowed))
            raise InputError(f"the command has {{{field}}}; possible here: {possible}")
    for needed in sorted(allowed):
        if needed not in fields:
            raise InputError(f"the command does not use {{{needed}}}")
    if not (folder / arguments[0]).is_file() and shutil.which(arguments[0]) is None:
        raise InputError(f"there is no command {arguments[0]!r} on the path, nor a file of that name in {folder}")
    scripts = {a: file_sha256(folder / a) for a in arguments if not _FIELD.search(a) and (folder / a).is_file()}
    code = {"command": list(arguments), "scripts": scripts, **({"env": dict(env)} if env else {})}
    return Inspection(
        uses=COMMAND + shlex.join([*(f"{key}={value}" for key, value in env.items()), *arguments]),
        step=name,
        roles=dict(roles),
        required=tuple(roles),
        outputs=("out",),
        params=canonical_params(params),
        fingerprint=hashlib.sha256(b"crucible-lineage/command/1\n" + canonical_json(code)).hexdigest(),
        not_covered=() if arguments[0] in scripts else (f"{arguments[0]} (a program of this machine)",),
        packages={},
        reached_packages=(),
        source=shlex.join(arguments),
        measurement=None,
        data_type=None,
        thumbnail=None,
        keywords=(),
    )


@dataclass(frozen=True)
class CommandCall:
    """A command with what is filled in: inputs by role, parameters, and variables of its environment."""

    name: str
    run: str | Sequence[str]
    declared_in: Path
    inputs: Mapping[str, Any]
    params: Mapping[str, Any]
    env: Mapping[str, str]


def call_command(call: CommandCall, attempt: Path, timeout_s: float | None) -> dict[str, Any]:
    """The metadata that the command left. StepError if it failed or took too long; its output is in LOG_FILE."""
    out, log, name = attempt / "out", attempt / LOG_FILE, call.name
    command = [part for argument in arguments_of(call.run) for part in _filled(argument, call, out)]
    command = [str(call.declared_in / part) if (call.declared_in / part).is_file() else part for part in command]
    passed = {key: value for key, value in os.environ.items() if key in PASSED or key.startswith("LC_")}
    try:
        code = run_limited(command, log, timeout_s, name, cwd=attempt, env={**passed, **call.env})
    except OSError as error:
        raise StepError(f"step {name!r}: {command[0]} cannot be started: {error}", step=name) from error
    if code != 0:
        tail = log.read_bytes()[-2000:].decode(errors="replace").strip()
        message = f"step {name!r}: the command ended with exit code {code}; what it printed is in {log}: {tail}"
        raise StepError(message, step=name, log=str(log))
    if not any(out.iterdir()) and (stray := _stray(attempt)):
        message = f"step {name!r}: the command wrote {stray[0]} beside {{out}} instead of into it; it is in {attempt}"
        raise StepError(message, step=name, log=str(log))
    return _metadata(name, out / METADATA_FILE)


def _stray(attempt: Path) -> list[str]:
    return sorted(path.name for path in attempt.iterdir() if path.name not in ("inputs", "out", LOG_FILE))


def _filled(argument: str, call: CommandCall, out: Path) -> list[str]:
    """The argument with its placeholders filled in; one that is just a list of files becomes several."""
    inputs, params = call.inputs, call.params
    whole = _FIELD.fullmatch(argument)
    if whole and whole[1].startswith("inputs.") and isinstance(inputs[whole[1][7:]], list):
        return [str(path) for path in inputs[whole[1][7:]]]

    def value(match: re.Match[str]) -> str:
        kind, _, name = match[1].partition(".")
        found = out if kind == "out" else inputs[name] if kind == "inputs" else params[name]
        if isinstance(found, list) and kind == "inputs":
            return " ".join(str(path) for path in found)
        return found if isinstance(found, str) else str(found) if isinstance(found, Path) else json.dumps(found)

    return [_FIELD.sub(value, argument)]


def _metadata(name: str, path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise StepError(f"step {name!r} wrote a {METADATA_FILE} that is no JSON: {error}", step=name) from error
    if not isinstance(metadata, dict):
        raise StepError(f"step {name!r} wrote a {METADATA_FILE} that is no JSON object", step=name)
    path.unlink()
    return metadata
