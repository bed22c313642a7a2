"""One result of a task run: its project and its fingerprint, what it is made of, its recipe, and its places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.slots import Filled
from crucible_lineage.pipeline.called.flow_places import About, about_inputs
from crucible_lineage.provenance.recipe import Code, UsedDataset, step_recipe
from crucible_lineage.tasks.dropin.arguments import GIVEN, Arguments, Input, given_file
from crucible_lineage.tasks.dropin.recording import Recording
from crucible_lineage.tasks.dropin.task_code import TaskCode

if TYPE_CHECKING:
    from crucible_lineage.tasks.dropin.running import Described

__all__ = ["RESULT", "Result", "about_of", "fingerprint", "inputs_of", "places_of", "recipe_of", "used_datasets"]

RESULT = "result_sha256"  # in the recipe: a task may give something else from the same arguments


@dataclass(frozen=True)
class Result:
    """One result of a task run, and all that its dataset is described by."""

    code: TaskCode
    described: Described
    recording: Recording
    arguments: Arguments
    logger: Any
    flow_run_id: str
    task_run_id: str
    output: str
    key: str = ""  # of Prefect's cache, where that stores it
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def project(self) -> str:
        return self.described.project or self.recording.destination.project

    @property
    def wants_reuse(self) -> bool:
        wish = self.described.reuse
        return self.recording.destination.reuse if wish is None else wish


def inputs_of(result: Result, written: Mapping[str, object]) -> list[Input]:
    """The inputs without the files that stood where the task writes. Files that the flow was given are registered."""
    arguments = result.arguments
    places = {arguments.places[role] for role in written if role in arguments.places}
    return [
        one if one.given is None else replace(one, origin=given_file(one.given, result.recording, result.logger))
        for one in arguments.inputs
        if not (one.known_by == GIVEN and one.given is not None and _is_under(one.given, places))
    ]


def _is_under(path: Path, places: set[Path]) -> bool:
    return any(path == place or place in path.parents for place in places)


def about_of(inputs: list[Input]) -> About:
    """The data that a result of these is about; what is not of this run stands for itself."""

    def about(one: Input) -> About:
        assert one.origin is not None  # each has one by now
        return one.origin.about or (one.origin.made.result().mfid,)

    return about_inputs((one.role, one.in_list, about(one)) for one in inputs)


def places_of(result: Result, about: About) -> dict[str, Filled]:
    return result.recording.places.filled(result.project, result.described.name, result.output, about)


def used_datasets(inputs: list[Input]) -> list[UsedDataset]:
    """The parents, once they are registered."""
    used: dict[tuple[str, str], UsedDataset] = {}
    for one in inputs:
        assert one.origin is not None  # each has one by now
        dataset = one.origin.made.result()
        files = [file for file in dataset.files if file.name in one.origin.files]
        known = used.get((one.role, dataset.mfid))
        if known is not None:
            files = [file for file in dataset.files if file in known.files or file in files]
        used[one.role, dataset.mfid] = UsedDataset(one.role, dataset, tuple(files))
    return list(used.values())


def recipe_of(result: Result, used: list[UsedDataset], places: set[str], digest: str | None) -> dict[str, Any]:
    """The recipe of the result; without `digest` that of the call, whatever it gives."""
    code = Code(result.described.name, fingerprint(result), {})
    params = {
        name: Path(str(result.arguments.places[name])).name if name in places else value
        for name, value in result.arguments.params.items()
    }
    for name in places:
        params.setdefault(name, result.arguments.places[name].name)
    shown = {**params, **({RESULT: digest} if digest else {})}
    return step_recipe(result.project, code, result.output, shown, used, salt=result.recording.destination.salt)


def fingerprint(result: Result) -> str:
    if result.described.version is not None:
        return f"version:{result.described.version}"
    return result.code.digest
