"""The folder that a run and the tasks of a Slurm job share: steps, claims of tasks to steps, and outcomes.

A job is an array. Each task claims a step that no other task has claimed, and further ones while they are short; tasks
that find none end at once. So short steps share a task, and long ones have one each. A task that Slurm restarts
continues with its claims.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.disk import private_folder, replacing
from crucible_lineage.json_types import JsonMapping, JsonObject

BATCH, EMPTY, SCRIPT = "batch.json", "empty", "script.sh"
CLAIM, JOB, OUTCOME = "claim-", "job-", "outcome-"
SHARED_S = 60.0  # chosen: a task claims another step only if that will probably end within this time


@dataclass(frozen=True)
class Member:
    """A step of a batch: the least id of its results, and its name in the run."""

    mfid: str
    step: str


@dataclass(frozen=True)
class Batch:
    """The steps of one Slurm job, in a folder. `context` has data folder, address and account."""

    folder: Path
    members: tuple[Member, ...]
    context: Mapping[str, str | None]

    @classmethod
    def create(cls, jobs: Sequence[JsonMapping], members: Sequence[Member], context: Mapping[str, str | None]) -> Batch:
        """Write a batch of these jobs, each as JSON, into a new folder of the data folder."""
        data = Path(str(context["data"]))
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=private_folder(data / "work")))
        for number, job in enumerate(jobs):
            (folder / f"{JOB}{number}.json").write_text(json.dumps(job), encoding="utf-8")
        content = {"members": [vars(one) for one in members], "context": dict(context)}
        (folder / BATCH).write_text(json.dumps(content), encoding="utf-8")
        return cls(folder, tuple(members), context)

    @classmethod
    def read(cls, folder: Path) -> Batch:
        """Read a batch. Raises OSError or ValueError if the folder has none."""
        content = json.loads((folder / BATCH).read_text(encoding="utf-8"))
        return cls(folder, tuple(Member(**one) for one in content["members"]), content["context"])

    @classmethod
    def all(cls, data: Path) -> Iterator[Batch]:
        """Yield each batch of a data folder."""
        for path in sorted((data / "work").glob(f"slurm-*/{BATCH}")):
            try:
                yield cls.read(path.parent)
            except (OSError, ValueError):  # removed meanwhile
                continue

    def job(self, number: int) -> Any:
        """Return a member's job as written by `create`."""
        return json.loads((self.folder / f"{JOB}{number}.json").read_text(encoding="utf-8"))

    def log(self, task: int) -> Path:
        """Return the log file of a task: what it printed outside of its steps, and Slurm's messages."""
        return self.folder / f"task-{task}.log"

    def task_of(self, number: int) -> int | None:
        """Return the task that has claimed a member; None if none has."""
        try:
            return int((self.folder / f"{CLAIM}{number}").read_text() or 0)
        except FileNotFoundError:
            return None

    def outcomes(self) -> set[int]:
        """Return the numbers of the members that have an outcome."""
        return _numbers(self._names(), OUTCOME)

    def outcome(self, number: int) -> JsonObject | None:
        """Return the outcome of a member; None if it has not ended."""
        try:
            outcome: JsonObject = json.loads((self.folder / f"{OUTCOME}{number}").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return outcome

    def write_outcome(self, number: int, outcome: Mapping[str, object]) -> None:
        """Write the outcome of a member, atomically."""
        with replacing(self.folder / f"{OUTCOME}{number}") as draft:
            draft.write_text(json.dumps(outcome), encoding="utf-8")

    def claims(self, task: int) -> Iterator[int]:
        """Yield the members for a task to execute: its earlier claims, then free members while they are short."""
        began, longest = time.monotonic(), 0.0
        while (number := self._next(task)) is not None:
            step_began = time.monotonic()
            yield number
            longest = max(longest, time.monotonic() - step_began)
            if time.monotonic() - began + longest > SHARED_S:
                return
        (self.folder / EMPTY).touch()

    def _names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]

    def _next(self, task: int) -> int | None:
        names = self._names()
        claimed, ended = _numbers(names, CLAIM), _numbers(names, OUTCOME)
        if own := [number for number in sorted(claimed - ended) if self.task_of(number) == task]:
            return own[0]
        free = sorted(set(range(len(self.members))) - claimed, key=lambda number: (number < task, number))
        return next((number for number in free if self._claim(number, task)), None)

    def _claim(self, number: int, task: int) -> bool:
        """Claim a member, unless another task has. The claim appears complete, as a link to a written file."""
        draft = self.folder / f"part-{task}-{os.getpid()}"
        draft.write_text(str(task))
        try:
            os.link(draft, self.folder / f"{CLAIM}{number}")
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True


def _numbers(names: Sequence[str], prefix: str) -> set[int]:
    return {int(name[len(prefix) :]) for name in names if name.startswith(prefix)}
