"""Prefect: `registering` for flows as people write them; a task for each step of Crucible's API; `step`.

Names are imported on first use: Prefect imports the block among them whenever a server or worker starts. Type checkers
read __init__.pyi.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

API_TASKS = (
    *("add_files", "add_keywords", "add_thumbnail", "check_lineage", "count_datasets", "create_dataset"),
    *("create_sample", "delete_dataset", "download_dataset", "ensure_project", "get_dataset", "get_download_links"),
    *("get_keywords", "get_metadata", "get_thumbnails", "link_parent_child", "link_sample", "list_children"),
    *("list_datasets", "list_files", "list_parents", "list_projects", "list_samples", "register_child"),
    *("render_lineage", "replace_metadata", "request_ingestion", "search_datasets", "search_metadata", "unlink"),
    *("unlink_sample", "update_dataset", "update_metadata", "upload_file", "wait_for_ingestion"),
)
_MODULES = {
    "CrucibleConnection": ".sessions",
    "CrucibleCredentials": ".credentials",
    "materialize": ".materialization",
    "Kind": ".values",
    "add_kind": ".values",
    "registering": ".flow",
    "session_for": ".sessions",
    "step": "crucible_lineage.step",
}

__all__ = ["API_TASKS", *_MODULES, *API_TASKS, *(f"a{name}" for name in API_TASKS)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name], __name__), name)
    elif name in API_TASKS:
        value = getattr(import_module(".api", __name__), name)
    elif name.startswith("a") and name[1:] in API_TASKS:
        value = import_module(".sessions", __name__).asynchronous(__getattr__(name[1:]))
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
