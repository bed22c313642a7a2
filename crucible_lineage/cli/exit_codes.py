"""End a command: print an error as lines on stderr, with --json as an object on stdout, and map it to an exit code."""

from __future__ import annotations

import json
import sys

import click

from crucible_lineage.cli.options import data_folder
from crucible_lineage.cli.printing import coloured, result_stream
from crucible_lineage.errors import (
    BAD_INPUT,
    FAILURE,
    INTERRUPTED,
    ON_HOLD,
    UNREACHABLE,
    CrucibleError,
    InputError,
    RunError,
    StepError,
)
from crucible_lineage.lineage.labels import plain_lines
from crucible_lineage.machine.disk import storage_error
from crucible_lineage.pipeline.logs import record_fault

EXIT_CODES = {
    0: "everything requested is done",
    FAILURE: "a step failed, Crucible refused a call, `verify` found an error, or the reader of the output exited",
    BAD_INPUT: "the request is wrong (an option, a declaration, a name, a correction); nothing was changed",
    UNREACHABLE: "Crucible did not answer, or Prefect where it is needed",
    ON_HOLD: "some results are doubtful, or not made, because data are on hold or lack a signature",
    INTERRUPTED: "stopped by Ctrl-C or SIGTERM; finished results are kept",
}


def report_error(error: BaseException, *, as_json: bool) -> int:
    """Print the error that ended a command, and return the exit code.

    The traceback of an unforeseen error is stored in a file, which the message names.
    """
    if isinstance(error, OSError):
        error = storage_error(error) or error
    code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", None)
    if code is None:
        error, code = RunError(record_fault(error, data_folder())[0]), FAILURE
    if as_json:
        click.echo(json.dumps({"error": _error_json(error, code)}, indent=2, ensure_ascii=False), file=result_stream())
    for line in _lines(error):
        click.echo(line, err=True)
    return code


def _lines(error: BaseException) -> list[str]:
    word = coloured("error", "red", sys.stderr)
    if isinstance(error, InputError):
        end = [] if "nothing was changed" in str(error) else ["nothing was changed"]
        return [*(f"{word}: {plain_lines(str(fault))}" for fault in error.faults), *end]
    if isinstance(error, KeyboardInterrupt):
        return ["stopped; finished results are kept; run the same command again to continue"]
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return [f"{word}: {plain_lines(message)}"]


def _error_json(error: BaseException, code: int) -> dict[str, object]:
    """Return the error as JSON. docs/commands.schema.json has its shape."""
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    described: dict[str, object] = {"kind": type(error).__name__, "message": message, "exit_code": code}
    if isinstance(error, InputError):
        described["faults"] = [fault.to_json() for fault in error.faults]
    if isinstance(error, CrucibleError):
        described |= {"status": error.status, "mfid": error.mfid}
    if isinstance(error, StepError):
        described |= {"step": error.step, "log": error.log}
    return described
