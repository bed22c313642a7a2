"""The provenance record: how a dataset came to be. It lies in the scientific metadata under its own key.

provenance_schema.py says what is in it; it is imported where a record is written or read, and not before.
"""

from __future__ import annotations

import functools
import getpass
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import DatasetRef, FileRef

__all__ = [
    "COMPLETE",
    "INCOMPLETE",
    "KEY",
    "SCHEMA",
    "Activity",
    "agent",
    "dataset_of_record",
    "git_state",
    "is_complete",
    "package_versions",
    "raw_record",
    "read_record",
    "run_record",
    "step_record",
    "unreadable",
]

KEY = "crucible_lineage"
SCHEMA = "crucible-lineage/provenance/1"
COMPLETE = "complete"
INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Activity:
    """One execution of a step: what ran, when, and in which runs of which engines."""

    step: str
    function: str
    fingerprint: str
    started: str
    ended: str
    source: str = ""
    not_covered: tuple[str, ...] = ()
    git: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    declared: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The `activity` part of the record."""
        code = {"fingerprint": self.fingerprint, "source": self.source[:20_000], "not_covered": list(self.not_covered)}
        return {
            "step": self.step,
            "function": self.function,
            "code": {**code, "git": dict(self.git) if self.git else None},
            "started": self.started,
            "ended": self.ended,
            "run": dict(self.run) if self.run else None,
            **({"declared": dict(self.declared)} if self.declared else {}),
        }


def step_record(
    *,
    recipe: Mapping[str, Any],
    pipeline: Mapping[str, Any] | None,
    used: Sequence[UsedDataset],
    generated: Sequence[FileRef],
    activity: Activity,
    packages: Iterable[str],
    who: Mapping[str, Any],
    supersedes: str | None,
) -> dict[str, Any]:
    """The record of an output of a step, as yet incomplete. InputError if it would not fit its schema."""
    record = {
        "schema": SCHEMA,
        "status": INCOMPLETE,
        "pipeline": dict(pipeline) if pipeline else None,
        "step": recipe["step"],
        "output": recipe["output"],
        "attempt": recipe.get("attempt", 0),
        "recipe": dict(recipe),
        "used": [
            {"role": part.role, "mfid": part.dataset.mfid, "files": [file.to_json() for file in part.files]}
            for part in used
        ],
        "generated": [file.to_json() for file in generated],
        "activity": activity.to_json(),
        "agent": dict(who),
        "software": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": package_versions(packages),
        },
        "supersedes": supersedes,
    }
    _validate(record)
    return record


def raw_record(
    recipe: Mapping[str, Any],
    files: Sequence[FileRef],
    who: Mapping[str, Any],
    parents: Sequence[str] = (),
    note: str | None = None,
) -> dict[str, Any]:
    """The record of files that were registered, as yet incomplete: measured, or made of `parents` by a person."""
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "status": INCOMPLETE,
        "recipe": dict(recipe),
        "used": [{"role": "parent", "mfid": mfid, "files": []} for mfid in parents],
        "generated": [file.to_json() for file in files],
        "agent": dict(who),
    }
    if parents or note:
        record["activity"] = {"kind": "by hand", "note": note}
    _validate(record)
    return record


def run_record(
    recipe: Mapping[str, Any], files: Sequence[FileRef], who: Mapping[str, Any], pipeline: str, run_id: str
) -> dict[str, Any]:
    """The record of a dataset that tells of a run, as yet incomplete."""
    record = {
        **raw_record(recipe, files, who),
        "activity": {"kind": "pipeline run", "pipeline": pipeline, "run_id": run_id},
    }
    _validate(record)
    return record


def read_record(scientific_metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The provenance record in a dataset's metadata, if there is one that fits the schema this version knows."""
    record = (scientific_metadata or {}).get(KEY)
    return record if isinstance(record, Mapping) and not unreadable(scientific_metadata) else None


def unreadable(scientific_metadata: Mapping[str, Any] | None) -> str:
    """Why what lies under the record's key is not read as a record; empty if it is, or if nothing lies there."""
    from crucible_lineage.provenance.schema import record_faults  # pydantic, which a fresh run does not need

    if KEY not in (scientific_metadata or {}):
        return ""
    record = (scientific_metadata or {})[KEY]
    schema = record.get("schema") if isinstance(record, Mapping) else None
    if isinstance(schema, str) and schema != SCHEMA:
        return f"it is of schema {schema}, this version reads {SCHEMA}"
    return "; ".join(record_faults(record))


def is_complete(record: Mapping[str, Any] | None) -> bool:
    """True if the dataset was registered to its end, by the registration whose record this is."""
    if record is None or record.get("status") != COMPLETE:
        return False
    return "registrar" not in record or record["registrar"] in (record.get("completed") or {})


def dataset_of_record(mfid: str, name: str, record: Mapping[str, Any]) -> DatasetRef:
    """The dataset that a record describes. InputError if it is a long record without its attached file."""
    if "generated" not in record:
        raise InputError(f"dataset {mfid}: the list of its files is in an attached file; ask for the whole record")
    return DatasetRef(mfid, name, tuple(FileRef.from_json(file) for file in record["generated"]))


def agent(user: Mapping[str, Any]) -> dict[str, Any]:
    """Who did it: the account at Crucible, and the name on this machine."""
    try:
        local = getpass.getuser()
    except (KeyError, OSError):  # a container without a password entry
        local = None
    known = {key: user.get(key) for key in ("unique_id", "username", "is_service_account")}
    return {**known, "local_user": local}


def _validate(record: Mapping[str, Any]) -> None:
    from crucible_lineage.provenance.schema import validate_record  # pydantic, which planning does not need

    validate_record(record)


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions that bring these import packages, and of crucible-lineage itself."""
    names = {name for package in packages for name in _distributions().get(package, [])}
    names.add("crucible-lineage")
    return {name: _version(name) for name in sorted(names)}


@functools.cache
def _version(name: str) -> str:
    """The version of a distribution; reading it takes longer than checking the whole record."""
    return metadata.version(name)


@functools.cache
def git_state(folder: Path) -> Mapping[str, Any] | None:
    """Commit and cleanliness of the git checkout that a folder lies in; None if there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None
