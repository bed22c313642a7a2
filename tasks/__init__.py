"""Prefect tasks: `task`, the drop-in for flows as people write them; one for each step of Crucible's API; `step`.

Names are imported on first use: Prefect imports the block among them whenever a server or worker starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crucible_lineage.tasks.api.calls import asynchronous
    from crucible_lineage.tasks.api.chains import check_lineage, register_child, render_lineage
    from crucible_lineage.tasks.api.datasets import (
        add_keywords,
        count_datasets,
        create_dataset,
        create_sample,
        delete_dataset,
        ensure_project,
        get_dataset,
        get_keywords,
        get_metadata,
        link_parent_child,
        link_sample,
        list_children,
        list_datasets,
        list_parents,
        list_projects,
        list_samples,
        replace_metadata,
        search_datasets,
        search_metadata,
        unlink,
        unlink_sample,
        update_dataset,
        update_metadata,
    )
    from crucible_lineage.tasks.api.files import (
        add_files,
        add_thumbnail,
        download_dataset,
        get_download_links,
        get_thumbnails,
        list_files,
        request_ingestion,
        upload_file,
        wait_for_ingestion,
    )
    from crucible_lineage.tasks.credentials import CrucibleCredentials
    from crucible_lineage.tasks.dropin.decorator import task
    from crucible_lineage.tasks.dropin.registering import registering
    from crucible_lineage.tasks.dropin.values.kinds import Kind, add_kind
    from crucible_lineage.tasks.materialization import materialize
    from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
    from crucible_lineage.tasks.steps import step

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

# Module -> the tasks in it;each has an asynchronous twin with the prefix `a`.
_API = {
    "chains": ("check_lineage", "register_child", "render_lineage"),
    "datasets": (
        *("count_datasets", "create_dataset", "delete_dataset", "get_dataset", "list_datasets", "search_datasets"),
        *("add_keywords", "get_keywords", "get_metadata", "replace_metadata", "search_metadata", "update_metadata"),
        *("link_parent_child", "list_children", "list_parents", "unlink", "update_dataset"),
        *("create_sample", "link_sample", "list_samples", "unlink_sample", "ensure_project", "list_projects"),
    ),
    "files": (
        *("add_files", "download_dataset", "get_download_links", "list_files", "upload_file"),
        *("add_thumbnail", "get_thumbnails", "request_ingestion", "wait_for_ingestion"),
    ),
}
API_TASKS = tuple(name for names in _API.values() for name in names)
_MODULES = {
    "CrucibleConnection": "sessions",
    "CrucibleCredentials": "credentials",
    "materialize": "materialization",
    "Kind": "dropin.values.kinds",
    "add_kind": "dropin.values.kinds",
    "registering": "dropin.registering",
    "task": "dropin.decorator",
    "session_for": "sessions",
    "step": "steps",
    **{name: f"api.{module}" for module, names in _API.items() for name in names},
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
    "task",
    *API_TASKS,
    *(f"a{name}" for name in API_TASKS),
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    elif name.startswith("a") and name[1:] in API_TASKS:
        value = import_module(f"{__name__}.api.calls").asynchronous(__getattr__(name[1:]))
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
