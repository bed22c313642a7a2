"""One result of a task run: its project, fingerprint, inputs, recipe and slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import FileChangedError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.step_call import About, about_inputs
from crucible_lineage.provenance.recipe import StepCode, UsedDataset, step_recipe
from crucible_lineage.tasks.dropin.arguments import Arguments, Input, register_file
from crucible_lineage.tasks.dropin.description import TaskCode, TaskDescription
from crucible_lineage.tasks.dropin.effects import OpenedFiles
from crucible_lineage.tasks.dropin.recording import PendingResult, Recording
from crucible_lineage.tasks.dropin.secret import hidden_text

LONGEST_LABEL = 60  # characters of the arguments in a name
RESULT = "result_sha256"  # in the recipe: a task may return different results for equal arguments


@dataclass(frozen=True)
class TaskResult:
    """One result of a task run, with everything that describes its dataset."""

    code: TaskCode
    description: TaskDescription
    recording: Recording
    arguments: Arguments
    logger: Any
    flow_run_id: str
    task_run_id: str
    output: str
    opened: OpenedFiles | None = None  # the files that the call opened
    held: PendingResult | None = None  # until its transaction ends
    key: str = ""  # in Prefect's cache, if stored there
    addresses: tuple[str, ...] = ()  # of data that the task declares to have written elsewhere
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def project(self) -> str:
        return self.description.project or self.recording.destination.project


def inputs_of(result: TaskResult, written: Mapping[str, Sequence[Path]]) -> list[Input]:
    """Return the inputs without files that the task has overwritten, and without those in its output folders unless
    it has read them. Register files that the flow was given.
    """
    return [_registered(parent, result) for parent in _used(result.arguments.inputs, result, written)]


def require_settled(result: TaskResult, written: Mapping[str, Sequence[Path]]) -> None:
    """Raise FileChangedError if the content of an input is unknown, since its file changed while it was read."""
    for parent in _used(result.arguments.unsettled, result, written):
        raise FileChangedError(f"{parent.path} changed while it was being read; try again when it no longer changes")


def _used(inputs: Sequence[Input], result: TaskResult, written: Mapping[str, Sequence[Path]]) -> list[Input]:
    outputs = {result.arguments.paths[role] for role in written if role in result.arguments.paths}
    changed = {path for paths in written.values() for path in paths}
    return [
        parent
        for parent in inputs
        if parent.path is None or _is_used(parent, parent.path, result.opened, outputs, changed)
    ]


def _registered(parent: Input, result: TaskResult) -> Input:
    """Return an input with its file registered."""
    if parent.unregistered is None:
        return parent
    return replace(parent, origin=register_file(parent.unregistered, result.recording, result.logger))


def _is_used(parent: Input, path: Path, opened: OpenedFiles | None, outputs: set[Path], changed: set[Path]) -> bool:
    """Return whether a file is an input of the call, with its content from before the call."""
    if path in changed or path in outputs:
        if opened is None or parent.origin is None:  # the earlier content has to be known
            return False
        return opened.has_read(path) or not opened.is_seen(path)  # opened by a library in C
    if parent.in_folder and _is_under(path, outputs):
        return opened is not None and opened.has_read(path)
    return True


def _is_under(path: Path, folders: set[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def call_label(result: TaskResult) -> str:
    """Return the label of a call: its task and the short arguments that are not defaults."""
    omitted = result.arguments.defaults | result.arguments.paths.keys()
    params = result.arguments.params.items()
    values = [str(value) for name, value in params if name not in omitted and isinstance(value, (str, int, float))]
    shown = hidden_text(", ".join(filter(None, values)))
    name = result.description.name if result.output == "out" else f"{result.description.name}, {result.output}"
    return f"{name} [{shown if len(shown) <= LONGEST_LABEL else shown[:LONGEST_LABEL] + '...'}]" if shown else name


def about_of(inputs: list[Input]) -> About:
    """Return the data that a result of these inputs is about; a dataset from elsewhere stands for itself."""

    def about(parent: Input) -> About:
        assert parent.origin is not None  # set by `inputs_of`
        return parent.origin.about or (parent.origin.future.result().mfid,)

    return about_inputs((parent.role, parent.in_list, about(parent)) for parent in inputs)


def slots_of(result: TaskResult, about: About) -> dict[str, SlotClaim]:
    return result.recording.slots.claims(result.project, result.description.name, result.output, about)


def used_datasets(inputs: list[Input]) -> list[UsedDataset]:
    """Wait until the parents are registered and return them."""
    used: dict[tuple[str, str], UsedDataset] = {}
    for parent in inputs:
        assert parent.origin is not None  # set by `inputs_of`
        dataset = parent.origin.future.result()
        files = [file for file in dataset.files if file.name in parent.origin.files]
        known = used.get((parent.role, dataset.mfid))
        if known is not None:
            files = [file for file in dataset.files if file in known.files or file in files]
        used[parent.role, dataset.mfid] = UsedDataset(parent.role, dataset, tuple(files))
    return list(used.values())


def recipe_of(result: TaskResult, used: list[UsedDataset], outputs: set[str], digest: str | None) -> JsonObject:
    """Return the recipe of the result; without `digest` that of the call, whatever its result."""
    code = StepCode(result.description.name, fingerprint(result), {})
    params = {
        name: Path(str(result.arguments.paths[name])).name if name in outputs else value
        for name, value in result.arguments.params.items()
    }
    for name in outputs:
        params.setdefault(name, result.arguments.paths[name].name)
    shown = {**params, **({RESULT: digest} if digest else {})}
    return step_recipe(result.project, code, result.output, shown, used)


def fingerprint(result: TaskResult) -> str:
    if result.description.version is not None:
        return f"version:{result.description.version}"
    return result.code.digest
