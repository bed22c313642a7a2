"""`crucible-lineage run` without Crucible, for `peers.py`: what plan, engine, files and records cost."""

from __future__ import annotations

import sys
from typing import Any

from crucible_lineage.cli import main
from crucible_lineage.pipeline.job import materialize
from crucible_lineage.pipeline.plan import raw
from crucible_lineage.pipeline.plan.known import ProjectKnowledge
from crucible_lineage.provenance.record import agent
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.contents import NewDataset
from crucible_lineage.session import Session


def registered(_client: Any, new: NewDataset, _machine: str | None = None) -> DatasetRef:
    return DatasetRef(new.mfid, new.name, tuple(file.ref for file in new.files))


def without_crucible() -> None:
    """No dataset is there, and each that is registered is said to be."""
    for module in (materialize, raw):
        for name, stand_in in {
            "register_output": registered,
            "look_up": lambda *_: (None, None),
            "find_by_recipe": lambda *_: None,
        }.items():
            setattr(module, name, stand_in)
    for owner, name, stand_in in (
        (Session, "client", None),
        (Session, "agent", agent({})),
        (Session, "ensure_project", lambda *_: None),
        (ProjectKnowledge, "_ask", lambda *_: {}),
    ):
        setattr(owner, name, stand_in)


if __name__ == "__main__":
    without_crucible()
    if "prefect" in sys.argv:
        from crucible_lineage.flows import pipelines

        pipelines.leave_artifacts = lambda *_: None  # they show the lineage, which is at Crucible
    main()
