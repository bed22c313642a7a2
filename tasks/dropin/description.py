"""What `@task` says of a function and of its effects; its code; and Prefect's cache, whose values are linked."""

from __future__ import annotations

import functools
import hashlib
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from prefect.cache_policies import DEFAULT, NO_CACHE, CachePolicy
from prefect.context import TaskRunContext
from prefect.runtime import deployment, flow_run, task_run
from prefect.settings import get_current_settings

from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint
from crucible_lineage.provenance.environment import git_state

Named = str | Iterable[str] | Callable[..., Any]
"""Arguments by their names, or a function of the arguments that gives paths, ids or addresses."""

OURS = frozenset(
    {
        *("measurement", "data_type", "project", "dataset_name", "keywords", "metadata", "code_version", "reuse"),
        *("ingest", "reads", "writes", "parents", "ignore"),
    }
)


@dataclass(frozen=True)
class TaskDescription:
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


def described(name: str, ours: Mapping[str, Any], before: TaskDescription | None = None) -> TaskDescription:
    """The description with these options, and with those that were there before."""
    given = dict(ours)
    if "code_version" in given:
        given["version"] = given.pop("code_version")
    for key in ("keywords", "reads", "writes", "parents", "ignore"):
        if key in given and not callable(given[key]):
            given[key] = (given[key],) if isinstance(given[key], (str, Path)) else tuple(given[key])
    return TaskDescription(**{**(vars(before) if before else {}), **given, "name": name})


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


_codes: weakref.WeakKeyDictionary[Any, TaskCode] = weakref.WeakKeyDictionary()
_codes_lock = threading.Lock()


def cache_keyword(key: str) -> str:
    """The keyword of the datasets that Prefect's cache has under this key."""
    return f"cache:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def asked_first(task: Any, hit: Callable[[TaskRunContext, str], None]) -> CachePolicy | None:
    """The task's own cache policy, and `hit` called where Prefect has a value for its key."""
    policy = task.cache_policy
    if policy is None and task.result_storage_key is None:
        return None
    if policy == NO_CACHE:
        return NO_CACHE
    return KeyFirstPolicy(policy if isinstance(policy, CachePolicy) else None, hit)


class KeyFirstPolicy(CachePolicy):
    """A policy that gives the keys of the user's, or else the task's own storage key."""

    def __init__(self, asked: CachePolicy | None, hit: Callable[[TaskRunContext, str], None]) -> None:
        options = {
            name: getattr(asked, name, None) for name in ("key_storage", "isolation_level", "lock_manager") if asked
        }
        super().__init__(**options)
        self.asked = asked
        self.hit = hit

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        """The key, as without us. The default policy is not asked where nothing is stored: its keys find nothing."""
        if self.asked is None:
            key: str | None = _storage_key(task_ctx.task.result_storage_key or "")
        elif self.asked == DEFAULT and not task_ctx.persist_result:
            return None
        else:
            key = self.asked.compute_key(task_ctx, inputs, flow_parameters, **more)
        if key and not _is_refreshed(task_ctx) and task_ctx.result_store.exists(key):
            self.hit(task_ctx, key)
        return key


def _storage_key(template: str) -> str:
    """As Prefect fills in `result_storage_key`."""
    runs = {"deployment": deployment, "flow_run": flow_run, "task_run": task_run}
    return template.format(**runs, parameters=task_run.parameters)


def _is_refreshed(context: TaskRunContext) -> bool:
    wish = context.task.refresh_cache
    return bool(get_current_settings().tasks.refresh_cache if wish is None else wish)


@dataclass(frozen=True)
class TaskCode:
    """The code of a function, as the process knows it that has imported it.

    A function of the program itself crosses to other processes by value, without the file that it is from. So it is
    read where the flow runs, and taken along.
    """

    name: str
    fingerprint: Fingerprint | None
    folder: Path | None

    @property
    def digest(self) -> str:
        """Return what stands for it in a recipe."""
        return self.fingerprint.digest if self.fingerprint else f"name:{self.name}"

    @functools.cached_property
    def git(self) -> Mapping[str, Any] | None:
        """The checkout that it lies in, asked once."""
        return git_state(self.folder) if self.folder and self.folder.is_dir() else None

    def packed(self) -> TaskCode:
        """The same, with all that is to be known of it on other machines."""
        _ = self.git
        return self


def task_code(function: Callable[..., object]) -> TaskCode:
    """The code of a function, read once."""
    with _codes_lock:
        if function not in _codes:
            _codes[function] = TaskCode(_name(function), _fingerprint(function), _folder(function))
        return _codes[function]


def _fingerprint(function: Callable[..., object]) -> Fingerprint | None:
    try:
        return code_fingerprint(function)
    except Exception:  # built in, made by exec, or otherwise without source
        return None


def _name(function: Callable[..., object]) -> str:
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def _folder(function: Callable[..., object]) -> Path | None:
    code = getattr(function, "__code__", None)
    return Path(code.co_filename).parent if code else None
