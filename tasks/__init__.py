"""Prefect tasks: `task`, the drop-in for flows as people write them; one for each step of Crucible's API; `step`.

Names are imported when they are first used: Prefect imports the block among them at every start of a server or worker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crucible_lineage.tasks.api.chains import aregister_child, register_child
    from crucible_lineage.tasks.api.datasets import (
        acount_datasets,
        acreate_dataset,
        adelete_dataset,
        aget_dataset,
        alist_datasets,
        asearch_datasets,
        aupdate_dataset,
        count_datasets,
        create_dataset,
        delete_dataset,
        get_dataset,
        list_datasets,
        search_datasets,
        update_dataset,
    )
    from crucible_lineage.tasks.api.files import (
        aadd_files,
        add_files,
        adownload_dataset,
        aget_download_links,
        alist_files,
        aupload_file,
        download_dataset,
        get_download_links,
        list_files,
        upload_file,
    )
    from crucible_lineage.tasks.api.ingestion import (
        arequest_ingestion,
        await_for_ingestion,
        request_ingestion,
        wait_for_ingestion,
    )
    from crucible_lineage.tasks.api.lineage import acheck_lineage, arender_lineage, check_lineage, render_lineage
    from crucible_lineage.tasks.api.links import (
        alink_parent_child,
        alist_children,
        alist_parents,
        aunlink,
        link_parent_child,
        list_children,
        list_parents,
        unlink,
    )
    from crucible_lineage.tasks.api.metadata import (
        aadd_keywords,
        add_keywords,
        aget_keywords,
        aget_metadata,
        areplace_metadata,
        asearch_metadata,
        aupdate_metadata,
        get_keywords,
        get_metadata,
        replace_metadata,
        search_metadata,
        update_metadata,
    )
    from crucible_lineage.tasks.api.projects import aensure_project, alist_projects, ensure_project, list_projects
    from crucible_lineage.tasks.api.samples import (
        acreate_sample,
        alink_sample,
        alist_samples,
        aunlink_sample,
        create_sample,
        link_sample,
        list_samples,
        unlink_sample,
    )
    from crucible_lineage.tasks.api.thumbnails import aadd_thumbnail, add_thumbnail, aget_thumbnails, get_thumbnails
    from crucible_lineage.tasks.credentials import CrucibleCredentials
    from crucible_lineage.tasks.dropin.decorator import task
    from crucible_lineage.tasks.dropin.registering import registering
    from crucible_lineage.tasks.dropin.values.kinds import Kind, add_kind
    from crucible_lineage.tasks.materialization import materialize
    from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
    from crucible_lineage.tasks.steps import step

# Module -> the tasks in it; each has an asynchronous twin, whose name has an `a` before it.
_API = {
    "chains": ("register_child",),
    "datasets": (
        "count_datasets",
        "create_dataset",
        "delete_dataset",
        "get_dataset",
        "list_datasets",
        "search_datasets",
        "update_dataset",
    ),
    "files": ("add_files", "download_dataset", "get_download_links", "list_files", "upload_file"),
    "ingestion": ("request_ingestion", "wait_for_ingestion"),
    "lineage": ("check_lineage", "render_lineage"),
    "links": ("link_parent_child", "list_children", "list_parents", "unlink"),
    "metadata": (
        "add_keywords",
        "get_keywords",
        "get_metadata",
        "replace_metadata",
        "search_metadata",
        "update_metadata",
    ),
    "projects": ("ensure_project", "list_projects"),
    "samples": ("create_sample", "link_sample", "list_samples", "unlink_sample"),
    "thumbnails": ("add_thumbnail", "get_thumbnails"),
}
API_TASKS = tuple(name for names in _API.values() for name in names)
_PLACES = {
    "CrucibleConnection": "sessions",
    "CrucibleCredentials": "credentials",
    "materialize": "materialization",
    "Kind": "dropin.values.kinds",
    "add_kind": "dropin.values.kinds",
    "registering": "dropin.registering",
    "task": "dropin.decorator",
    "session_for": "sessions",
    "step": "steps",
    **{f"{prefix}{name}": f"api.{module}" for module, names in _API.items() for name in names for prefix in ("", "a")},
}

__all__ = [
    "API_TASKS",
    "CrucibleConnection",
    "CrucibleCredentials",
    "Kind",
    "aadd_files",
    "aadd_keywords",
    "aadd_thumbnail",
    "acheck_lineage",
    "acount_datasets",
    "acreate_dataset",
    "acreate_sample",
    "add_files",
    "add_keywords",
    "add_kind",
    "add_thumbnail",
    "adelete_dataset",
    "adownload_dataset",
    "aensure_project",
    "aget_dataset",
    "aget_download_links",
    "aget_keywords",
    "aget_metadata",
    "aget_thumbnails",
    "alink_parent_child",
    "alink_sample",
    "alist_children",
    "alist_datasets",
    "alist_files",
    "alist_parents",
    "alist_projects",
    "alist_samples",
    "aregister_child",
    "arender_lineage",
    "areplace_metadata",
    "arequest_ingestion",
    "asearch_datasets",
    "asearch_metadata",
    "aunlink",
    "aunlink_sample",
    "aupdate_dataset",
    "aupdate_metadata",
    "aupload_file",
    "await_for_ingestion",
    "check_lineage",
    "count_datasets",
    "create_dataset",
    "create_sample",
    "delete_dataset",
    "download_dataset",
    "ensure_project",
    "get_dataset",
    "get_download_links",
    "get_keywords",
    "get_metadata",
    "get_thumbnails",
    "link_parent_child",
    "link_sample",
    "list_children",
    "list_datasets",
    "list_files",
    "list_parents",
    "list_projects",
    "list_samples",
    "materialize",
    "register_child",
    "registering",
    "render_lineage",
    "replace_metadata",
    "request_ingestion",
    "search_datasets",
    "search_metadata",
    "session_for",
    "step",
    "task",
    "unlink",
    "unlink_sample",
    "update_dataset",
    "update_metadata",
    "upload_file",
    "wait_for_ingestion",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
