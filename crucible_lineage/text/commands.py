"""Commands of steps as texts, as in `run: NAME=value fit --in {inputs.spectrum} --out {out}`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crucible_lineage.json_types import JsonObject

FIELD = re.compile(r"\{([^{}]*)\}")
SHELL_FIELD = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_.-]*)\}")  # in a line for a shell; not ${NAME}
COMMAND, SHELL_COMMAND = "run: ", "shell: "  # before the text of a command, where a function would be named
SHELL = ("sh", "-c")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
Values = Mapping[str, Any]


def is_command(uses: str) -> bool:
    """Return whether this names a command and not a function."""
    return uses.startswith((COMMAND, SHELL_COMMAND))


def split_command(uses: str) -> JsonObject:
    """Return `run`, `shell` and `env` of a command in a record: `run: NAME=value program argument`."""
    shell = uses.startswith(SHELL_COMMAND)
    arguments = shlex.split(uses.removeprefix(SHELL_COMMAND if shell else COMMAND))
    count = next((n for n, part in enumerate(arguments) if not _ASSIGNMENT.match(part)), len(arguments))
    variables = {name: value for name, _, value in (part.partition("=") for part in arguments[:count])}
    return {"run": arguments[-1] if shell else tuple(arguments[count:]), "shell": shell, "env": variables}


def filled_command(
    arguments: Iterable[str], inputs: Values, params: Values, places: Values, folder: Path, *, shell: bool
) -> list[str]:
    """Fill in the fields of a command: `inputs` are a path or paths by role, `places` paths of `out` and `facts`.

    Arguments that are files in `folder` become their paths.
    """
    filled = (part for each in arguments for part in _filled(each, inputs, params, places, shell=shell))
    return [str(folder / part) if (folder / part).is_file() else part for part in filled]


def _filled(argument: str, inputs: Values, params: Values, places: Values, *, shell: bool) -> list[str]:
    """Fill in the fields of an argument; one that is only a list of files becomes several arguments."""
    field = None if shell else FIELD.fullmatch(argument)
    if field and field[1].startswith("inputs.") and isinstance(inputs[field[1][7:]], list):
        return [str(path) for path in inputs[field[1][7:]]]
    quoted = shlex.quote if shell else str

    def value(match: re.Match[str]) -> str:
        kind, _, name = match[1].partition(".")
        if kind == "inputs":
            found = inputs[name]
            return " ".join(quoted(str(path)) for path in (found if isinstance(found, list) else [found]))
        if kind in places:
            return quoted(str(places[kind]))
        return quoted(params[name] if isinstance(params[name], str) else json.dumps(params[name]))

    return [(SHELL_FIELD if shell else FIELD).sub(value, argument)]
