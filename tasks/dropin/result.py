"""One result of a task run: its project and its fingerprint, what it is made of, its recipe, and its slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.pipeline.step_call import About, about_inputs
from crucible_lineage.provenance.recipe import StepCode, UsedDataset, step_recipe
from crucible_lineage.tasks.dropin.arguments import Arguments, Input, given_file
from crucible_lineage.tasks.dropin.description import TaskCode, TaskDescription
from crucible_lineage.tasks.dropin.effects import OpenedFiles
from crucible_lineage.tasks.dropin.recording import PendingResult, Recording
from crucible_lineage.tasks.dropin.secret import hidden_text

LONGEST_LABEL = 60  # letters of the arguments in a name
RESULT = "result_sha256"  # in the recipe: a task may give something else from the same arguments


@dataclass(frozen=True)
class TaskResult:
    """One result of a task run, and all that its dataset is described by."""

    code: TaskCode
    described: TaskDescription
    recording: Recording
    arguments: Arguments
    logger: Any
    flow_run_id: str
    task_run_id: str
    output: str
    opened: OpenedFiles | None = None  # the files that the call opened
    held: PendingResult | None = None  # until its transaction ends
    key: str = ""  # of Prefect's cache, where that stores it
    addresses: tuple[str, ...] = ()  # what the task says it has written elsewhere
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def project(self) -> str:
        return self.described.project or self.recording.destination.project

    @property
    def wants_reuse(self) -> bool:
        wish = self.described.reuse
        return self.recording.destination.reuse if wish is None else wish


def inputs_of(result: TaskResult, written: Mapping[str, Sequence[Path]]) -> list[Input]:
    """The inputs without files that the task has written over, and without those in a folder that it writes to, unless
    it has read them. Files that the flow was given are registered.
    """
    outputs = {result.arguments.places[role] for role in written if role in result.arguments.places}
    changed = {path for paths in written.values() for path in paths}
    return [
        one if one.given is None else replace(one, origin=given_file(one.given, result.recording, result.logger))
        for one in result.arguments.inputs
        if one.path is None or _is_used(one, one.path, result.opened, outputs, changed)
    ]


def _is_used(one: Input, path: Path, opened: OpenedFiles | None, outputs: set[Path], changed: set[Path]) -> bool:
    """Whether a file is an input of the call, as it stood when the call began."""
    if path in changed or path in outputs:
        if opened is None or one.origin is None:  # what it was has to be known
            return False
        return opened.has_read(path) or not opened.is_seen(path)  # opened by a library in C
    if one.in_folder and _is_under(path, outputs):
        return opened is not None and opened.has_read(path)
    return True


def _is_under(path: Path, folders: set[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def call_label(result: TaskResult) -> str:
    """Return the name of a call: its task, and the arguments that somebody gave, as far as they are short."""
    unsaid = result.arguments.defaults | result.arguments.places.keys()
    params = result.arguments.params.items()
    told = [str(value) for name, value in params if name not in unsaid and isinstance(value, (str, int, float))]
    shown = hidden_text(", ".join(filter(None, told)))
    name = result.described.name if result.output == "out" else f"{result.described.name}, {result.output}"
    return f"{name} [{shown if len(shown) <= LONGEST_LABEL else shown[:LONGEST_LABEL] + '...'}]" if shown else name


def about_of(inputs: list[Input]) -> About:
    """The data that a result of these is about; what is not of this run stands for itself."""

    def about(one: Input) -> About:
        assert one.origin is not None  # each has one by now
        return one.origin.about or (one.origin.made.result().mfid,)

    return about_inputs((one.role, one.in_list, about(one)) for one in inputs)


def slots_of(result: TaskResult, about: About) -> dict[str, SlotClaim]:
    return result.recording.slots.claims(result.project, result.described.name, result.output, about)


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


def recipe_of(result: TaskResult, used: list[UsedDataset], outputs: set[str], digest: str | None) -> dict[str, Any]:
    """The recipe of the result; without `digest` that of the call, whatever it gives."""
    code = StepCode(result.described.name, fingerprint(result), {})
    params = {
        name: Path(str(result.arguments.places[name])).name if name in outputs else value
        for name, value in result.arguments.params.items()
    }
    for name in outputs:
        params.setdefault(name, result.arguments.places[name].name)
    shown = {**params, **({RESULT: digest} if digest else {})}
    return step_recipe(result.project, code, result.output, shown, used, salt=result.recording.destination.salt)


def fingerprint(result: TaskResult) -> str:
    if result.described.version is not None:
        return f"version:{result.described.version}"
    return result.code.digest
