"""What a declaration names at Crucible: its project, whether a run can make it, and the ingestors that it has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from crucible_lineage.errors import Fault, InputError, nearest
from crucible_lineage.ids import PROJECT_ID_RULE, is_project_id
from crucible_lineage.pipeline.declare.load import Declaration, read_declaration
from crucible_lineage.pipeline.spec.inputs import EachInput, FileInput
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec


def project_in(folder: Path) -> str | None:
    """Return the project that the pipeline files in a folder name; None if they name none, or several."""
    projects = set()
    for file in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        with suppress(InputError):  # of another program
            spec = read_declaration(file).spec
            projects |= {spec.project} if spec else set()
    return projects.pop() if len(projects) == 1 else None


def project_fault(declared: Declaration) -> Fault | None:
    """Return why the pipeline's project cannot be made; None if it can, or if no project can be read."""
    project = declared.spec.project if declared.spec and "project" in declared.document.data else None
    if project is None or is_project_id(project):
        return None
    return declared.document.fault(("project",), f"no project can be called {project!r}: {PROJECT_ID_RULE}")


def named_ingestors(spec: PipelineSpec) -> dict[tuple[str | int, ...], str]:
    """{place in the declaration: the ingestor named there}."""
    return {place: name for place, name in _named(spec) if name}


def ingestor_faults(declared: Declaration, known: Collection[str]) -> list[Fault]:
    """A fault for each ingestor that is named and is none of those that Crucible has."""
    named = named_ingestors(declared.spec) if declared.spec else {}
    return [
        declared.document.fault(place, f"Crucible has no ingestor {name!r}; {nearest(name, known)}")
        for place, name in named.items()
        if name not in known
    ]


def _named(spec: PipelineSpec) -> Iterator[tuple[tuple[str | int, ...], str | None]]:
    for name, given in spec.inputs.items():
        if isinstance(given, FileInput):
            yield ("inputs", name, "ingestor"), given.ingestor
        elif isinstance(given, EachInput):
            for number, entry in enumerate(given.each):
                yield ("inputs", name, "each", number, "ingestor"), getattr(entry, "ingestor", None)
    for name, step in spec.steps.items():
        yield ("steps", name, "output", "ingestor"), step.output.ingestor
