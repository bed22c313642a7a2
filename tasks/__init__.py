"""Prefect: `registering` for flows as people write them; a task for each step of Crucible's API; `step`.

Names are imported on first use: Prefect imports the block among them whenever a server or worker starts.
"""
# ruff: noqa: F403, F405 (types of the tasks in `__all__` of two modules)

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crucible_lineage.step import step
    from crucible_lineage.tasks.api_datasets import *
    from crucible_lineage.tasks.api_files import *
    from crucible_lineage.tasks.credentials import CrucibleCredentials
    from crucible_lineage.tasks.materialization import materialize
    from crucible_lineage.tasks.recording import registering
    from crucible_lineage.tasks.sessions import CrucibleConnection, asynchronous, session_for
    from crucible_lineage.tasks.values import Kind, add_kind

    aadd_files = asynchronous(add_files)
    aadd_keywords = asynchronous(add_keywords)
    aadd_thumbnail = asynchronous(add_thumbnail)
    acheck_lineage = asynchronous(check_lineage)
    acount_datasets = asynchronous(count_datasets)
    acreate_dataset = asynchronous(create_dataset)
    acreate_sample = asynchronous(create_sample)
    adelete_dataset = asynchronous(delete_dataset)
    adownload_dataset = asynchronous(download_dataset)
    aensure_project = asynchronous(ensure_project)
    aget_dataset = asynchronous(get_dataset)
    aget_download_links = asynchronous(get_download_links)
    aget_keywords = asynchronous(get_keywords)
    aget_metadata = asynchronous(get_metadata)
    aget_thumbnails = asynchronous(get_thumbnails)
    alink_parent_child = asynchronous(link_parent_child)
    alink_sample = asynchronous(link_sample)
    alist_children = asynchronous(list_children)
    alist_datasets = asynchronous(list_datasets)
    alist_files = asynchronous(list_files)
    alist_parents = asynchronous(list_parents)
    alist_projects = asynchronous(list_projects)
    alist_samples = asynchronous(list_samples)
    aregister_child = asynchronous(register_child)
    arender_lineage = asynchronous(render_lineage)
    areplace_metadata = asynchronous(replace_metadata)
    arequest_ingestion = asynchronous(request_ingestion)
    asearch_datasets = asynchronous(search_datasets)
    asearch_metadata = asynchronous(search_metadata)
    aunlink = asynchronous(unlink)
    aunlink_sample = asynchronous(unlink_sample)
    aupdate_dataset = asynchronous(update_dataset)
    aupdate_metadata = asynchronous(update_metadata)
    aupload_file = asynchronous(upload_file)
    await_for_ingestion = asynchronous(wait_for_ingestion)

# Module -> the tasks in it; each has an asynchronous twin with the prefix `a`.
_API = {
    "datasets": (
        *("count_datasets", "create_dataset", "delete_dataset", "get_dataset", "list_datasets", "search_datasets"),
        *("add_keywords", "get_keywords", "get_metadata", "replace_metadata", "search_metadata", "update_metadata"),
        *("link_parent_child", "list_children", "list_parents", "unlink", "update_dataset"),
        *("create_sample", "link_sample", "list_samples", "unlink_sample", "ensure_project", "list_projects"),
        *("check_lineage", "register_child", "render_lineage"),
    ),
    "files": (
        *("add_files", "download_dataset", "get_download_links", "list_files", "upload_file"),
        *("add_thumbnail", "get_thumbnails", "request_ingestion", "wait_for_ingestion"),
    ),
}
API_TASKS = tuple(name for names in _API.values() for name in names)
_MODULES = {
    "CrucibleConnection": ".sessions",
    "CrucibleCredentials": ".credentials",
    "materialize": ".materialization",
    "Kind": ".values",
    "add_kind": ".values",
    "registering": ".recording",
    "session_for": ".sessions",
    "step": "crucible_lineage.step",
    **{name: f".api_{module}" for module, names in _API.items() for name in names},
}

__all__ = [
    "API_TASKS",
    "CrucibleConnection",
    "CrucibleCredentials",
    "Kind",
    "add_kind",
    "materialize",
    "registering",
    "session_for",
    "step",
    *API_TASKS,
    *(f"a{name}" for name in API_TASKS),
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name], __name__), name)
    elif name.startswith("a") and name[1:] in API_TASKS:
        value = import_module(".sessions", __name__).asynchronous(__getattr__(name[1:]))
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
