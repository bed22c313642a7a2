"""Runs that could not start: remembered, and stated for all machines, as a run that failed in the night is."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from crucible_lineage.errors import TRANSIENT, LineageError
from crucible_lineage.failed_runs import state_run
from crucible_lineage.session import Session

__all__ = ["noting_unstarted"]


@contextmanager
def noting_unstarted(session: Session, declaration: Path, pipeline: str = "", project: str = "") -> Iterator[None]:
    """Note an error that ends this block as a run that could not start.

    Pipeline and project are found out where they are not given, from the file or from earlier runs.
    """
    try:
        yield
    except LineageError as error:
        if not pipeline:
            pipeline, project = _named(session, declaration)
        with nullcontext() if session.settings.embedded else session.client.repeating(0.0):
            with suppress(LineageError):  # what is raised already says more; or nobody knows whose key it is
                path = declaration.absolute()
                session.journal.note_unstarted(uuid.uuid4().hex, pipeline, project, path, str(error))
            if project and not isinstance(error, TRANSIENT):
                state_run(session, project, pipeline, f"could not start: {error}", {})
        raise


def _named(session: Session, declaration: Path) -> tuple[str, str]:
    """Return name and project of a declaration that may have faults; without a project if nobody knows."""
    from crucible_lineage.pipeline.declare.yaml import parse_document  # only what cannot be read is read twice

    data: Any = None
    with suppress(OSError, LineageError):
        data = parse_document(declaration.read_text(encoding="utf-8"), declaration.name).data
    if isinstance(data, dict) and isinstance(data.get("pipeline"), str) and isinstance(data.get("project"), str):
        return data["pipeline"], data["project"]
    path = str(declaration.absolute())
    known = (one for one in session.journal.pipelines() if path in one["declarations"])
    return next(((one["pipeline"], one["project"]) for one in known), (declaration.stem, ""))
