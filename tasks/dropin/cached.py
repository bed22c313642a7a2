"""Prefect's cache within `registering`: the user's policy decides, and what it gives back is linked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from prefect.cache_policies import DEFAULT, NO_CACHE, CachePolicy
from prefect.context import TaskRunContext
from prefect.runtime import deployment, flow_run, task_run
from prefect.settings import get_current_settings

__all__ = ["AskedFirst", "asked_first", "cache_keyword"]


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
    return AskedFirst(policy if isinstance(policy, CachePolicy) else None, hit)


class AskedFirst(CachePolicy):
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
