"""The inputs of a step as files of its own: checked by hash and placed before it runs, compared when it has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileStamp, file_sha256, stamp
from crucible_lineage.errors import FileChangedError, StepError
from crucible_lineage.pipeline.files.fetch import place_file
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.session import Session

__all__ = ["PlacedInputs", "place_inputs", "require_unchanged", "telling_of_changes"]


@dataclass(frozen=True)
class PlacedInputs:
    """What a step is given by role; how each file stood then, and its hash. `note` tells of what had to be replaced."""

    arguments: Mapping[str, Any]
    files: Mapping[Path, tuple[FileStamp, str]]
    note: str = ""


def place_inputs(job: Job, folder: Path, session: Session) -> PlacedInputs:
    """The inputs in the attempt's folder, each with just the bytes of its hash, in the shapes of their roles."""
    files: dict[Path, tuple[FileStamp, str]] = {}
    placed: dict[str, list[tuple[int, Path]]] = {}
    numbers: Counter[str] = Counter()
    replaced = []
    for part in job.used:
        number = numbers[part.role] = numbers[part.role] + 1
        for file in part.files:
            target = folder / "inputs" / part.role / str(number) / file.name
            if place_file(part.dataset, file, target, session):
                replaced.append(file.name)
            placed.setdefault(part.role, []).append((number, target))
            files[target] = (stamp(target), file.sha256)
    note = f"the file cache held other bytes for {', '.join(replaced)}; they were fetched again" if replaced else ""
    return PlacedInputs(
        arguments={role: _shaped(job.inspection.roles[role], paths) for role, paths in placed.items()},
        files=files,
        note=note,
    )


def require_unchanged(job: Job, placed: PlacedInputs) -> None:
    """FileChangedError if the step has changed one of its inputs: nobody can say then what its result was made from."""
    if changed := _changed(placed):
        raise FileChangedError(
            f"step {job.name!r} changed its input {changed!r} while it ran; its result was not registered. "
            "Let it copy the file before changing it"
        )


@contextmanager
def telling_of_changes(placed: PlacedInputs) -> Iterator[None]:
    """A step that fails in this block is told with the input that was changed meanwhile: that may be why it failed."""
    try:
        yield
    except StepError as error:
        if changed := _changed(placed):
            error.args = (f"{error}; its input {changed!r} was changed while it ran", *error.args[1:])
        raise


def _changed(placed: PlacedInputs) -> str:
    """The name of the first file that is another one by now; empty if none is."""
    for path, (before, sha256) in placed.files.items():
        if not path.exists() or (stamp(path) != before and file_sha256(path) != sha256):
            return path.name
    return ""


def _shaped(shape: str, files: Sequence[tuple[int, Path]]) -> object:
    if shape == "file":
        ((_, path),) = files
        return path
    if shape == "files":
        return [path for _, path in files]
    names = Counter(path.name for _, path in files)
    return {path.name if names[path.name] == 1 else f"{number}/{path.name}": path for number, path in files}
