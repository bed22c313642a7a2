"""What `@task` says of its results and of its effects beside Prefect's options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

__all__ = ["OURS", "Described", "Named", "described"]

Named = str | Iterable[str] | Callable[..., Any]
"""Arguments by their names, or a function of the arguments that gives paths, ids or addresses."""

OURS = frozenset(
    {
        *("measurement", "data_type", "project", "dataset_name", "keywords", "metadata", "code_version", "reuse"),
        *("ingest", "reads", "writes", "parents", "ignore"),
    }
)


@dataclass(frozen=True)
class Described:
    """How the results of a task are described as datasets, and what the task reads and writes.

    `reads` and `writes` are names of arguments, `reads` patterns of file names too, or functions of the arguments that
    give paths, ids or addresses; so is `parents`, or these themselves. Arguments in `ignore` are not recorded.
    """

    name: str
    measurement: str | None = None
    data_type: str | None = None
    project: str | None = None
    dataset_name: str | None = None
    keywords: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None
    reuse: bool | None = None
    ingest: bool = False
    reads: tuple[str, ...] | Callable[..., Any] | None = None
    writes: tuple[str, ...] | Callable[..., Any] | None = None
    parents: tuple[str, ...] | Callable[..., Any] = ()
    ignore: tuple[str, ...] = ()

    def reads_files(self, role: str) -> bool:
        """Whether files that this argument names may be inputs."""
        if callable(self.reads):
            return False
        if self.reads is None:
            return not isinstance(self.writes, tuple) or role not in self.writes
        names = [one for one in self.reads if not _is_pattern(one)]
        return not names or role in names

    def reads_file(self, path: Path) -> bool:
        """Whether a file of this name may be an input."""
        patterns = [one for one in self.reads if _is_pattern(one)] if isinstance(self.reads, tuple) else []
        return not patterns or any(fnmatch(path.name, pattern) for pattern in patterns)

    def may_write(self, role: str) -> bool:
        """Whether the task may write where this argument says."""
        return not isinstance(self.writes, tuple) or role in self.writes


def described(name: str, ours: Mapping[str, Any], before: Described | None = None) -> Described:
    """The description with these options, and with those that were there before."""
    given = dict(ours)
    if "code_version" in given:
        given["version"] = given.pop("code_version")
    for key in ("keywords", "reads", "writes", "parents", "ignore"):
        if key in given and not callable(given[key]):
            given[key] = (given[key],) if isinstance(given[key], (str, Path)) else tuple(given[key])
    return Described(**{**(vars(before) if before else {}), **given, "name": name})


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")
