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
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if as_json:  # docs/commands.schema.json has its shape
        described: dict[str, object] = {"kind": type(error).__name__, "message": message, "exit_code": code}
        if isinstance(error, InputError):
            described["faults"] = [fault.to_json() for fault in error.faults]
        if isinstance(error, CrucibleError):
            described |= {"status": error.status, "mfid": error.mfid}
        if isinstance(error, StepError):
            described |= {"step": error.step, "log": error.log}
        click.echo(json.dumps({"error": described}, indent=2, ensure_ascii=False), file=result_stream())
    messages = [str(fault) for fault in error.faults] if isinstance(error, InputError) else [message]
    word = coloured("error", "red", sys.stderr)
    lines = [f"{word}: {plain_lines(text)}" for text in messages]
    if isinstance(error, InputError) and "nothing was changed" not in str(error):
        lines.append("nothing was changed")
    if isinstance(error, KeyboardInterrupt):
        lines = ["stopped; finished results are kept; run the same command again to continue"]
    for line in lines:
        click.echo(line, err=True)
    return code
