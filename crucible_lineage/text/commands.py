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
COMMAND = "run: "  # before the text of a command, where a function would be named
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
Values = Mapping[str, Any]


def is_command(uses: str) -> bool:
    """Return whether this names a command and not a function."""
    return uses.startswith(COMMAND)


def split_command(uses: str) -> JsonObject:
    """Return `run` and `env` of a command in a record: `run: NAME=value program argument`."""
    arguments = shlex.split(uses.removeprefix(COMMAND))
    count = next((n for n, part in enumerate(arguments) if not _ASSIGNMENT.match(part)), len(arguments))
    variables = {name: value for name, _, value in (part.partition("=") for part in arguments[:count])}
    return {"run": tuple(arguments[count:]), "env": variables}


def filled_command(arguments: Iterable[str], inputs: Values, params: Values, places: Values, folder: Path) -> list[str]:
    """Fill in the fields of a command: `inputs` are lists of paths by role, `places` paths of `out` and `facts`.

    An argument that is only an input becomes one for each file. Those that are files in `folder` become their paths.
    """

    def value(match: re.Match[str]) -> str:
        kind, _, name = match[1].partition(".")
        if kind == "inputs":
            return " ".join(map(str, inputs[name]))
        if kind in places:
            return str(places[kind])
        return params[name] if isinstance(params[name], str) else json.dumps(params[name])

    filled: list[str] = []
    for argument in arguments:
        field = FIELD.fullmatch(argument)
        paths = inputs[field[1][7:]] if field and field[1].startswith("inputs.") else None
        filled += [FIELD.sub(value, argument)] if paths is None else map(str, paths)
    return [str(folder / part) if (folder / part).is_file() else part for part in filled]
