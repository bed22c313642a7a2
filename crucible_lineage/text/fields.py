"""Fields in the arguments of commands, as in `fit --in {inputs.spectrum} --out {out}`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

FIELD = re.compile(r"\{([^{}]*)\}")
SHELL_FIELD = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_.-]*)\}")  # in a line for a shell; not ${NAME}


def filled_argument(
    argument: str, inputs: Mapping[str, Any], params: Mapping[str, Any], places: Mapping[str, object], *, shell: bool
) -> list[str]:
    """Fill in the fields of an argument: `inputs` are a path or paths by role, `places` paths of `out` and `facts`.

    An argument that is only a list of files becomes several arguments.
    """
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
