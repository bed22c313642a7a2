"""Options of `@task` that describe a function and its effects, its code, and a policy that links cached results."""

from __future__ import annotations

import functools
import hashlib
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from prefect.cache_policies import DEFAULT, NO_CACHE, CachePolicy
from prefect.context import TaskRunContext
from prefect.runtime import deployment, flow_run, task_run
from prefect.settings import get_current_settings

from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.provenance.environment import git_state

Named = str | Iterable[str] | Callable[..., Any]
"""Names of arguments, or a function of the arguments that returns paths, ids or addresses."""

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
    return paths, ids or addresses; `parents` is such a function, or paths, ids and addresses. Arguments in `ignore` are
    not recorded.
    """

    name: str
    measurement: str | None = None
    data_type: str | None = None
    project: str | None = None
    dataset_name: str | None = None
    keywords: tuple[str, ...] = ()
    metadata: JsonMapping = field(default_factory=dict)
    version: str | None = None
    reuse: bool | None = None
    ingest: bool = False
    reads: tuple[str, ...] | Callable[..., Any] | None = None
    writes: tuple[str, ...] | Callable[..., Any] | None = None
    parents: tuple[str, ...] | Callable[..., Any] = ()
    ignore: tuple[str, ...] = ()

    def reads_files(self, role: str) -> bool:
        """Return whether files that this argument names may be inputs."""
        if callable(self.reads):
            return False
        if self.reads is None:
            return not isinstance(self.writes, tuple) or role not in self.writes
        names = [name for name in self.reads if not _is_pattern(name)]
        return not names or role in names

    def reads_file(self, path: Path) -> bool:
        """Return whether a file of this name may be an input."""
        patterns = [name for name in self.reads if _is_pattern(name)] if isinstance(self.reads, tuple) else []
        return not patterns or any(fnmatch(path.name, pattern) for pattern in patterns)

    def may_write(self, role: str) -> bool:
        """Return whether the task may write to the path in this argument."""
        return not isinstance(self.writes, tuple) or role in self.writes


def describe_task(name: str, ours: JsonMapping, base: TaskDescription | None = None) -> TaskDescription:
    """Return a description with these options, based on an earlier one if given."""
    options = dict(ours)
    if "code_version" in options:
        options["version"] = options.pop("code_version")
    for key in ("keywords", "reads", "writes", "parents", "ignore"):
        if key in options and not callable(options[key]):
            options[key] = (options[key],) if isinstance(options[key], (str, Path)) else tuple(options[key])
    return TaskDescription(**{**(vars(base) if base else {}), **options, "name": name})


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


_codes: weakref.WeakKeyDictionary[Any, TaskCode] = weakref.WeakKeyDictionary()
_codes_lock = threading.Lock()


def cache_keyword(key: str) -> str:
    """Return the keyword of datasets that Prefect's cache has under this key."""
    return f"cache:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def link_cache_hits(task: Any, on_hit: Callable[[TaskRunContext, str], None]) -> CachePolicy | None:
    """Return the task's own cache policy, extended to call `on_hit` if Prefect has a value for the key."""
    policy = task.cache_policy
    if policy is None and task.result_storage_key is None:
        return None
    if policy == NO_CACHE:
        return NO_CACHE
    return KeyFirstPolicy(policy if isinstance(policy, CachePolicy) else None, on_hit)


class KeyFirstPolicy(CachePolicy):
    """A policy with the keys of the user's policy, or else the task's storage key."""

    def __init__(self, policy: CachePolicy | None, on_hit: Callable[[TaskRunContext, str], None]) -> None:
        options = {
            name: getattr(policy, name, None) for name in ("key_storage", "isolation_level", "lock_manager") if policy
        }
        super().__init__(**options)
        self.policy = policy
        self.on_hit = on_hit

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: JsonObject, flow_parameters: JsonObject, **more: Any
    ) -> str | None:
        """Return Prefect's own key. The default policy is skipped if nothing is stored: its keys would find nothing."""
        if self.policy is None:
            key: str | None = _storage_key(task_ctx.task.result_storage_key or "")
        elif self.policy == DEFAULT and not task_ctx.persist_result:
            return None
        else:
            key = self.policy.compute_key(task_ctx, inputs, flow_parameters, **more)
        if key and not _is_refreshed(task_ctx) and task_ctx.result_store.exists(key):
            self.on_hit(task_ctx, key)
        return key


def _storage_key(template: str) -> str:
    """Fill in `result_storage_key` as Prefect does."""
    runs = {"deployment": deployment, "flow_run": flow_run, "task_run": task_run}
    return template.format(**runs, parameters=task_run.parameters)


def _is_refreshed(context: TaskRunContext) -> bool:
    requested = context.task.refresh_cache
    return bool(get_current_settings().tasks.refresh_cache if requested is None else requested)


@dataclass(frozen=True)
class TaskCode:
    """The code of a function, as seen by the process that imported it.

    A function of the main program is pickled by value, without its source file. So its code is read where the flow runs
    and passed along.
    """

    name: str
    fingerprint: Fingerprint | None
    folder: Path | None

    @property
    def digest(self) -> str:
        """The code's form in a recipe."""
        return self.fingerprint.digest if self.fingerprint else f"name:{self.name}"

    @functools.cached_property
    def git(self) -> JsonMapping | None:
        """State of the Git checkout with the code, read once."""
        return git_state(self.folder) if self.folder and self.folder.is_dir() else None

    def packed(self) -> TaskCode:
        """Read everything that other machines need, and return self."""
        _ = self.git
        return self


def task_code(function: Callable[..., object]) -> TaskCode:
    """Return the code of a function, read once."""
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
