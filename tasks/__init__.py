"""Prefect tasks: one for each step of Crucible's API, and `materialize` for one whole step of a pipeline."""

from crucible_lineage.tasks.api import (
    add_keywords,
    add_thumbnail,
    create_dataset,
    download_dataset,
    link_parent_child,
    link_sample,
    request_ingestion,
    update_metadata,
    upload_file,
    wait_for_ingestion,
)
from crucible_lineage.tasks.materialization import materialize
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
from crucible_lineage.tasks.steps import registering, step

__all__ = [
    "CrucibleConnection",
    "add_keywords",
    "add_thumbnail",
    "create_dataset",
    "download_dataset",
    "link_parent_child",
    "link_sample",
    "materialize",
    "registering",
    "request_ingestion",
    "session_for",
    "step",
    "update_metadata",
    "upload_file",
    "wait_for_ingestion",
]
