"""Names of the official client that differ or are missing here; the error says what to use instead.

The names are those of nano-crucible 3.3.0.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import nearest

OFFICIAL_CLIENT = "the official client's own CrucibleClient (nano-crucible), which can be used beside this one"
_METADATA = {
    "get_scientific_metadata": "client.metadata.get(mfid)",
    "update_scientific_metadata": "client.metadata.merge(mfid, metadata), or .replace",
    "replace_scientific_metadata": "client.metadata.replace(mfid, metadata)",
    "search_metadata": "client.metadata.search(q)",
    "search_scientific_metadata": "client.metadata.search(q)",
}
_ACCESS = dict.fromkeys(
    (
        *("add_access_group", "get_access_groups", "list_access", "revoke_access", "set_access", "transfer_ownership"),
        *("add_user", "remove_user", "get_users", "update_user_role", "request_join", "list_join_requests"),
        *("bind_service_account", "unbind_service_account", "list_service_accounts", "set_status"),
    ),
    OFFICIAL_CLIENT,
)
_SHARING = {
    **dict.fromkeys(
        ("publish", "set_public"),
        "client.datasets.set_public(mfid), which takes datasets; for others " + OFFICIAL_CLIENT,
    ),
    **dict.fromkeys(
        ("unpublish", "unset_public", "set_private"),
        "client.datasets.set_private(mfid), which takes datasets; for others " + OFFICIAL_CLIENT,
    ),
    "reassign_project": "client.datasets.assign_project(mfid, project), which takes datasets; for others "
    + OFFICIAL_CLIENT,
}
_GRAPH = {"graph": "client.graphs.get(mfid, recursive=True)"}

REPLACEMENTS: Mapping[str, Mapping[str, str]] = {
    "files": {
        **_METADATA,
        "get_download_link": "client.files.download_link(file_mfid)",
        "replace": "client.files.upload(dsid, path, replace=True)",
        "request_ingestion": "client.ingestions.request(file_mfid, ingestion_class)",
    },
    "datasets": {
        **_METADATA,
        **_ACCESS,
        **_SHARING,
        **_GRAPH,
        "add_file": "client.datasets.add_file_to_dataset(dsid, path)",
        "get_ingestion_requests": "client.ingestions.list(dataset_mfid=dsid)",
        "get_request_status": "client.ingestions.get(request_id)",
        "link": "client.datasets.link_parent_child(parent_id, child_id)",
        "link_sample": "client.datasets.add_sample(dataset_id, sample_id)",
        "remove_child": "client.datasets.unlink(parent_id, child_id)",
        "unlink_sample": "client.datasets.remove_sample(dsid, sample_mfid)",
        **dict.fromkeys(
            (
                *("request_carrier_segmentation", "request_insitu_aggregation", "request_mosaic_stitch"),
                *("request_rga_analysis", "update_ingestion_status"),
            ),
            OFFICIAL_CLIENT,
        ),
    },
    "samples": {
        **_METADATA,
        **_ACCESS,
        **_SHARING,
        **_GRAPH,
        **dict.fromkeys(
            ("add_dataset", "add_to_dataset", "link_dataset"), "client.datasets.add_sample(dataset_id, sample_id)"
        ),
        **dict.fromkeys(
            ("remove_dataset", "remove_from_dataset", "unlink_dataset"),
            "client.datasets.remove_sample(dsid, sample_mfid)",
        ),
        "download": "client.datasets.download(dsid, folder) for each of its datasets",
        "facets": "client.samples.list(...) and a Counter, or " + OFFICIAL_CLIENT,
        "link": "client.samples.link_parent_child(parent_id, child_id)",
        "remove_child": "client.samples.unlink(parent_id, child_id)",
    },
    "projects": {**_METADATA, **_ACCESS, **_SHARING, "get_or_create": "client.projects.find(project_id), then .create"},
    "instruments": {
        **_METADATA,
        **_ACCESS,
        **_SHARING,
        "get_or_create": "client.instruments.create(...), which returns an existing instrument",
    },
    "deletions": {
        **_METADATA,
        "get_deleted": "client.deletions.deleted()",
        "list_deleted": "client.deletions.deleted()",
    },
    "graphs": _METADATA,
    "account": {
        **_METADATA,
        **dict.fromkeys(("api_key", "join_requests", "sync_projects", "update_profile"), OFFICIAL_CLIENT),
        "verify": "client.account.whoami()",
    },
    "ingestions": {**_METADATA, "list_ingestors": "client.ingestions.ingestors()", "update": OFFICIAL_CLIENT},
    "metadata": {},
    "client": {
        **dict.fromkeys(("users", "service_accounts", "access_groups", "print", "api_key"), OFFICIAL_CLIENT),
        **dict.fromkeys(
            ("authorization", "capabilities", "can_elevate", "is_elevated", "refresh_profile"),
            "client.account.profile()",
        ),
        "download": "client.datasets.download(dsid, folder)",
        "get": "client.datasets.get(mfid), or .samples.get",
        "get_links": "client.datasets.get(mfid, include_links=True).links",
        "get_resource_type": "client.graphs.get(mfid), or " + OFFICIAL_CLIENT,
        "link": "client.datasets.link_parent_child(parent_id, child_id)",
        "unlink": "client.datasets.unlink(parent_id, child_id)",
        "live": "client.health()",
        "whoami": "client.account.whoami()",
        "privilege_mode": "CrucibleClient(privilege_mode=...)",
        "upload_progress": "client.files.upload(dsid, path, progress=...)",
        "upload_protocol": "client.files.upload(dsid, path), which chooses the protocol itself",
        "request_ingestion": "client.datasets.add_file_to_dataset(dsid, path, ingest=False)",
        "replace_existing": "client.files.upload(dsid, path, replace=True)",
    },
}


def replacement(subject: str, name: str) -> str:
    """Return what to use instead of a name of the official client; empty if it has no such name."""
    return REPLACEMENTS[subject].get(name, "")


class OfficialNames:
    """Base of classes with calls: an error for a missing name of the official client says what to use.

    Calls also accept the official client's argument names.
    """

    subject = "client"

    def __init_subclass__(cls, **options: Any) -> None:
        """Let the calls accept arguments by their official names, too."""
        super().__init_subclass__(**options)
        for name, call in list(vars(cls).items()):
            if isinstance(call, FunctionType) and not name.startswith("_"):
                setattr(cls, name, accept_official_names(call))

    if not TYPE_CHECKING:  # type checkers should report missing names

        def __getattr__(self, name: str) -> Any:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            instead = replacement(type(self).subject, name)
            raise AttributeError(f"{message}; use {instead}" if instead else message, name=name, obj=self)


# Our names of the official client's arguments; the first that a call has is used.
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "dataset_mfid": ("dsid", "dataset_id", "mfid"),
    "dataset_id": ("dsid", "mfid"),
    "dsid": ("dataset_id", "mfid"),
    "mfid": ("dsid",),
    "resource_mfid": ("mfid", "dsid"),
    "resource_id": ("mfid", "dsid"),
    "sample_mfid": ("sample_id", "mfid"),
    "sample_id": ("sample_mfid", "mfid"),
    "parent_mfid": ("parent_id", "dsid", "mfid"),
    "child_mfid": ("child_id", "dsid", "mfid"),
    "parent_dataset_id": ("parent_id",),
    "child_dataset_id": ("child_id",),
    "file_id": ("file_mfid", "file"),
    "file_path": ("path",),
    "file_name": ("include",),
    "output_dir": ("folder",),
    "ingestion_class": ("ingestor",),
    "image": ("picture",),
    "thumbnail_name": ("name",),
    "reviewer_notes": ("notes",),
    **dict.fromkeys(("instrument_id", "instrument_mfid", "instrument_ref", "instrument_name"), ("instrument",)),
    **dict.fromkeys(("project_id", "project_mfid", "project_ref", "proj_id"), ("project", "project_id")),
    "unique_id": ("mfid",),
}
_OMIT = "omit it"
_ALL_RECORDS = f"{_OMIT}: all records come, or as many as `limit` says"
ARGUMENT_HINTS: Mapping[str, str] = {
    **dict.fromkeys(("offset", "cursor", "include_total"), _ALL_RECORDS),
    "limit": f"{_OMIT}: all records come",
    **dict.fromkeys(
        ("include_owner", "include_datasets", "include_members", "include_metadata", "include_links"),
        f"{_OMIT}: the default of Crucible applies",
    ),
    **dict.fromkeys(
        ("multipart", "chunk_size_mb", "max_workers", "sleep_interval", "verbose"),
        f"{_OMIT}: the client chooses it itself",
    ),
    "overwrite_existing": f"{_OMIT}: a file with the same bytes is kept, a different one is replaced",
    **dict.fromkeys(("no_files", "no_record"), "use client.datasets.get for the record, .download for the files"),
    "disposition": _OMIT,
    "as_networkx": "use crucible_lineage.lineage.LineageGraph.from_api with the answer",
    "privilege_mode": "use CrucibleClient(privilege_mode=...)",
    "scientific_metadata": "use client.metadata.merge(mfid, metadata) afterwards",
    **dict.fromkeys(("parents", "children"), "use client.samples.link_parent_child(parent_id, child_id) afterwards"),
    "upload_files": "give `files` only to send them",
    "skip_ingestion": "use client.datasets.add_file_to_dataset(dsid, path, ingest=False)",
    "wait_for_ingestion_response": "use client.ingestions.wait(request_id) afterwards",
    **dict.fromkeys(
        (
            "relationship_type",
            "sort",
            "direction",
            "status",
            "affiliation",
            "orcid",
            "scope",
            "member_ref",
            "member_role",
        ),
        f"{_OMIT}, and filter the answer",
    ),
    **dict.fromkeys(("accessible_to_user", "accessible_to_project"), f"{_OMIT}: the records that this key sees come"),
}


def our_name(name: str, known: Collection[str]) -> str:
    """Return our name of an official argument, for a call with `known` ones; empty if none of them matches."""
    return next((candidate for candidate in SPELLINGS.get(name, ()) if candidate in known), "")


def argument_hint(name: str) -> str:
    """Return what to use instead of an official argument that no call here has; empty if it is none."""
    return ARGUMENT_HINTS.get(name, "")


def accept_official_names(call: FunctionType) -> Callable[..., Any]:
    """Wrap a call to accept official argument names. For others, TypeError says what to use."""
    code = call.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = names[: code.co_argcount]
    takes_more = bool(code.co_flags & inspect.CO_VARKEYWORDS)  # **fields or **filters, which the call checks
    required = positional[: code.co_argcount - len(call.__defaults__ or ())]
    known = frozenset(names)
    candidates = frozenset(required if takes_more else names)  # one with a default may be a field

    @functools.wraps(call)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if kwargs.keys() <= known:
            return call(*args, **kwargs)
        bound = {*positional[: len(args)], *kwargs}
        renamed = {}
        for name, value in kwargs.items():
            target = name if name in names else our_name(name, candidates - bound)
            if not target and not takes_more:
                hint = argument_hint(name) or nearest(name, names[1:], "it takes")
                raise TypeError(f"client.{args[0].subject}.{call.__name__}() takes no {name!r}; {hint}")
            renamed[target or name] = value
            bound.add(target or name)
        return call(*args, **renamed)

    return wrapper
