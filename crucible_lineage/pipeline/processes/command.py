"""A command run as a step: fill in its placeholders, restrict its environment, read its metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

from crucible_lineage.errors import StepError
from crucible_lineage.pipeline.logs import STEP_LOG, StepLog, tail_of
from crucible_lineage.pipeline.plan.command import FACTS, arguments_of
from crucible_lineage.pipeline.processes.side_files import CallOutcome, ProcessCall, ReturnedError, returned
from crucible_lineage.pipeline.processes.supervised import Supervised, death_text, ending_error
from crucible_lineage.text.commands import filled_command

FACTS_FILE = "facts.json"  # beside {out}; what {facts} stands for
METADATA_FILE = "metadata.json"  # written into {out}: becomes the child's metadata, not one of its files
# Variables that programs need to run at all, without our keys and other secrets.
PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH"),
    *("DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH"),
)


def call_command(call: ProcessCall, attempt: Path, log: StepLog) -> CallOutcome:
    """Run the command; return its metadata. Its output goes to the log. Raises StepError if it failed or timed out."""
    out, name, folder = attempt / "out", call.name, call.spec.folder
    if call.facts is not None:
        text = json.dumps(call.facts.to_json(), indent=1, ensure_ascii=False)
        (attempt / FACTS_FILE).write_text(text, encoding="utf-8")
    places, shell = {"out": out, FACTS: attempt / FACTS_FILE}, call.spec.shell
    command = filled_command(arguments_of(call.spec), call.paths, call.params, places, folder, shell=shell)
    passed = {key: value for key, value in os.environ.items() if key in PASSED or key.startswith("LC_")}
    try:
        process = Supervised(command, log.write, name, run_id=call.run_id, cwd=attempt, env={**passed, **call.env})
    except OSError as error:
        raise StepError(f"step {name!r}: {command[0]} cannot be started: {error}", step=name) from error
    process.finish()
    in_time = process.wait(call.spec.timeout)
    if not in_time:
        process.end()
        process.wait()
    log.close()
    if stopped := ending_error(process, log.path, call.spec.timeout, in_time=in_time):
        raise stopped
    if process.code != 0:
        code = process.code or 0
        message = f"step {name!r}: the command {'ended with' if code >= 0 else 'was ended by'} {death_text(code)}"
        tail = tail_of(log.path)
        message += f"; its output is in {log.path}: {tail}" if tail else "; it printed nothing"
        raise StepError(message, step=name, log=str(log.path))
    own = ("inputs", "out", STEP_LOG, FACTS_FILE)
    stray = min((path.name for path in attempt.iterdir() if path.name not in own), default=None)
    if stray and not any(out.iterdir()):
        message = f"step {name!r}: the command wrote {stray} beside {{out}} instead of into it; it is in {attempt}"
        raise StepError(message, step=name, log=str(log.path))
    return CallOutcome(_metadata(name, out / METADATA_FILE), left=process.left, code=folder)


def _metadata(name: str, path: Path) -> dict[str, object]:
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise StepError(f"step {name!r} wrote a {METADATA_FILE} that is not JSON: {error}", step=name) from error
    if not isinstance(metadata, dict):
        raise StepError(f"step {name!r} wrote a {METADATA_FILE} that is not a JSON object", step=name)
    try:
        plain = returned(metadata)
    except ReturnedError as error:
        raise StepError(f"step {name!r}: {METADATA_FILE}: {error}", step=name) from error
    path.unlink()
    return plain or {}
