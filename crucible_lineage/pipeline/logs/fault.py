"""A fault of crucible-lineage itself, not of a step nor of what was asked: its traceback is kept in a file."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from crucible_lineage.disk import private_file, private_folder
from crucible_lineage.errors import LineageError
from crucible_lineage.pipeline.logs.secrets import Blotter, own_secrets

__all__ = ["FOLDER", "UnforeseenFault", "told_fault"]

FOLDER = "logs"  # in the data folder
MOST_KEPT = 100  # files


@dataclass(frozen=True)
class UnforeseenFault:
    """What is told of an error that nobody has foreseen, and the file with its traceback, if that could be written."""

    message: str
    log: Path | None


def told_fault(error: BaseException, data: Path, *keys: str | None) -> UnforeseenFault:
    """The fault, its traceback in a file of the data folder; neither has the `keys` in it.

    If the file cannot be written, the traceback stands in the message.
    """
    blotter = Blotter(own_secrets(*keys))
    trace = blotter.text("".join(traceback.format_exception(error)))
    line = blotter.text(f"{type(error).__name__}: {error}".removesuffix(": "))
    message = f"{line}; this is a fault of crucible-lineage, please report it"
    try:
        log = _kept(trace, data)
    except (OSError, LineageError):
        return UnforeseenFault(f"{message}; its traceback:\n{trace}", None)
    return UnforeseenFault(f"{message}; its traceback is in {log}", log)


def _kept(trace: str, data: Path) -> Path:
    folder = private_folder(data / FOLDER)
    for old in sorted(folder.glob("fault-*.log"))[: -MOST_KEPT + 1]:
        with suppress(OSError):
            old.unlink()
    path = folder / f"fault-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.log"
    private_file(path).write_text(trace, encoding="utf-8", errors="backslashreplace")
    return path
