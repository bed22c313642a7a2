"""A step that is a command: `run: fit --in {inputs.spectrum} --degree {params.degree} --out {out}`.

The text is split into arguments before the fields are filled in, and no shell is involved: a file name is always one
argument. Arguments that are files beside the declaration are scripts: their content is part of the identity.
`{facts}` is a file with the facts about the parents. A command gets the few environment variables that programs need,
and those that the step declares.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence

from crucible_lineage.errors import Fault, InputError, nearest, nearest_word
from crucible_lineage.fingerprint.walk import canonical_params
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.pipeline.declare.load import referenced
from crucible_lineage.pipeline.declare.pipeline import StepSpec
from crucible_lineage.pipeline.plan.inspect import Inspection, Inspector, secret_faults, with_reads
from crucible_lineage.text.commands import COMMAND, FIELD
from crucible_lineage.text.masking import masked, masked_text

FACTS = "facts"  # the field that stands for a file with the facts of the parents
_LITERAL = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"])*\"")  # quoted or escaped
_SIGN = re.compile(r"\|+|^\d*[<>]+&?|^&+$|&+$|;+$|^;+|\$\(|`|\$\w+")


def arguments_of(step: StepSpec) -> tuple[str, ...]:
    """Return the arguments of a command. Raises InputError if it cannot be split."""
    run = step.run or ()
    try:
        arguments = tuple(shlex.split(run)) if isinstance(run, str) else tuple(run)
    except ValueError as error:
        raise InputError(f"the command {run!r} cannot be split into arguments: {error}") from error
    if not arguments:
        raise InputError("the command is empty")
    return arguments


def inspect_declared(
    name: str, spec: StepSpec, roles: Mapping[str, str], params: JsonMapping, inspector: Inspector
) -> Inspection:
    """Inspect a declared step with these parameters. `roles` are needed for a command only."""
    if spec.uses is None:
        return inspect_command(name, spec, roles, params)
    return inspector.inspect(spec.uses, params, spec.folder, reads=spec.reads)


def inspect_command(name: str, step: StepSpec, roles: Mapping[str, str], params: JsonMapping) -> Inspection:
    """Inspect a command as a step; fingerprint template, scripts and variables. Raises InputError with all faults."""
    folder, env, arguments = step.folder, step.env, arguments_of(step)
    values = canonical_params(params)
    faults = [*_field_faults(arguments, roles, params), *_program_faults(step, arguments)]
    faults += secret_faults(name, values)
    given = {key: value for key, value in env.items() if not referenced(value)}
    if masked_text(line := " ".join(arguments)) != line or masked(given) != given:
        message = "the command holds a secret, which would be in its id and record; use `env: {NAME: ${env.NAME}}`"
        faults.append(Fault(message))
    if faults:
        raise InputError("", faults)
    scripts = {a: file_sha256(folder / a) for a in arguments if not FIELD.search(a) and (folder / a).is_file()}
    code: JsonObject = {"command": list(arguments), "scripts": scripts, **({"env": dict(env)} if env else {})}
    named = [*(f"{key}={value}" for key, value in env.items()), *arguments]
    inspection = Inspection(
        uses=COMMAND + shlex.join(named),
        step=name,
        roles=dict(roles),
        required=tuple(roles),
        outputs=("out",),
        params=values,
        fingerprint=hashlib.sha256(b"crucible-lineage/command/1\n" + canonical_json(code)).hexdigest(),
        not_covered=() if arguments[0] in scripts else (f"{arguments[0]} (a program of this machine)",),
        source=shlex.join(arguments),
        facts=FACTS if FACTS in _fields_in(arguments) else "",
    )
    return with_reads(inspection, {name: folder / name for name in step.reads})


def _fields_in(arguments: Sequence[str]) -> list[str]:
    """Return the fields of a command, each once, as in {inputs.spectrum}."""
    return list(dict.fromkeys(field for argument in arguments for field in FIELD.findall(argument)))


def _field_faults(arguments: Sequence[str], roles: Mapping[str, str], params: Mapping[str, object]) -> Iterator[Fault]:
    """Yield the fields that the step does not have, and the inputs and parameters that the command does not use."""
    allowed = {"out", *(f"inputs.{role}" for role in roles), *(f"params.{key}" for key in params)}
    fields = _fields_in(arguments)
    meant = set(fields)
    for field in fields:
        if field not in (*allowed, FACTS):
            near = nearest_word(field, sorted(allowed)) or ""
            meant |= {near} if nearest_word(field.rpartition(".")[2], [near.rpartition(".")[2]]) else set()
            yield Fault(f"the command has {{{field}}}; {nearest(field, [*sorted(allowed), FACTS], 'possible here')}")
    for needed in sorted(allowed - meant):
        location = () if needed == "out" else tuple(needed.split(".", 1))
        message = f"the command does not use {{{needed}}}; write it where it belongs, or remove it"
        yield Fault(message, location=location)


def _program_faults(step: StepSpec, arguments: Sequence[str]) -> Iterator[Fault]:
    """Yield faults for a missing program, and for the syntax of a shell, since none is involved."""
    if not (step.folder / arguments[0]).is_file() and shutil.which(arguments[0]) is None:
        where = f"on the path, nor a file of that name in {step.folder}"
        yield Fault(f"there is no command {arguments[0]!r} {where}")
    if isinstance(step.run, str):
        # Syntax outside of quotes: operators begin or end a word, unlike an `&` in an address.
        words = _LITERAL.sub("", FIELD.sub("", step.run)).split()
        if shown := ", ".join(dict.fromkeys(match[0] for word in words for match in _SIGN.finditer(word) if match[0])):
            message = f"this command runs without a shell, so {shown} would be an argument"
            way_out = 'write [sh, -c, LINE, sh, VALUE, ...], where LINE has the first value as "$1", or quote it'
            yield Fault(f"{message}; {way_out}")
