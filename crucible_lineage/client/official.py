"""What the official client calls otherwise, or has and this one has not: the error says what to use instead.

Names are those of nano-crucible 3.3.0.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import nearest

THERE = "the official client's own CrucibleClient (nano-crucible), which works beside this one"
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
    THERE,
)
_SHARING = {
    **dict.fromkeys(
        ("publish", "set_public"), "client.datasets.set_public(mfid), which takes datasets; for others " + THERE
    ),
    **dict.fromkeys(
        ("unpublish", "unset_public", "set_private"),
        "client.datasets.set_private(mfid), which takes datasets; for others " + THERE,
    ),
    "reassign_project": "client.datasets.assign_project(mfid, project), which takes datasets; for others " + THERE,
}
_GRAPH = {"graph": "client.graphs.get(mfid, recursive=True)"}

OTHERWISE: Mapping[str, Mapping[str, str]] = {
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
            THERE,
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
        "facets": "client.samples.list(...) and a Counter, or " + THERE,
        "link": "client.samples.link_parent_child(parent_id, child_id)",
        "remove_child": "client.samples.unlink(parent_id, child_id)",
    },
    "projects": {**_METADATA, **_ACCESS, **_SHARING, "get_or_create": "client.projects.find(project_id), then .create"},
    "instruments": {
        **_METADATA,
        **_ACCESS,
        **_SHARING,
        "get_or_create": "client.instruments.create(...), which gives the one that is there",
    },
    "deletions": {
        **_METADATA,
        "get_deleted": "client.deletions.deleted()",
        "list_deleted": "client.deletions.deleted()",
    },
    "graphs": _METADATA,
    "account": {
        **_METADATA,
        **dict.fromkeys(("api_key", "join_requests", "sync_projects", "update_profile"), THERE),
        "verify": "client.account.whoami()",
    },
    "ingestions": {**_METADATA, "list_ingestors": "client.ingestions.ingestors()", "update": THERE},
    "metadata": {},
    "client": {
        **dict.fromkeys(("users", "service_accounts", "access_groups", "print", "api_key"), THERE),
        **dict.fromkeys(
            ("authorization", "capabilities", "can_elevate", "is_elevated", "refresh_profile"),
            "client.account.profile()",
        ),
        "download": "client.datasets.download(dsid, folder)",
        "get": "client.datasets.get(mfid), or .samples.get",
        "get_links": "client.datasets.get(mfid, include_links=True).links",
        "get_resource_type": "client.graphs.get(mfid), or " + THERE,
        "link": "client.datasets.link_parent_child(parent_id, child_id)",
        "unlink": "client.datasets.unlink(parent_id, child_id)",
        "live": "client.health()",
        "whoami": "client.account.whoami()",
        "privilege_mode": "CrucibleClient(privilege_mode=...)",
        "upload_progress": "client.files.upload(dsid, path, progress=...)",
        "upload_protocol": "client.files.upload(dsid, path), which finds the protocol itself",
        "request_ingestion": "client.datasets.add_file_to_dataset(dsid, path, ingest=False)",
        "replace_existing": "client.files.upload(dsid, path, replace=True)",
    },
}


def otherwise(subject: str, name: str) -> str:
    """Return what to use instead of a name of the official client; empty if it has none of that name."""
    return OTHERWISE[subject].get(name, "")


class OfficialNames:
    """Base of what has calls: a name of the official client that it lacks is told with what to use.

    Names of arguments are taken as the official client has them (arguments.py).
    """

    subject = "client"

    def __init_subclass__(cls, **options: Any) -> None:
        """Its calls take arguments by their official names, too."""
        super().__init_subclass__(**options)
        for name, call in list(vars(cls).items()):
            if isinstance(call, FunctionType) and not name.startswith("_"):
                setattr(cls, name, taking_official_names(call, f"client.{cls.subject}"))

    if not TYPE_CHECKING:  # to type checkers, what is not there is not there

        def __getattr__(self, name: str) -> Any:
            said = f"{type(self).__name__!r} object has no attribute {name!r}"
            instead = otherwise(type(self).subject, name)
            raise AttributeError(f"{said}; use {instead}" if instead else said, name=name, obj=self)


# What an argument is called here, for those of the official client; the first that a call has.
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
_LEAVE_OUT = "leave it out"
_WHOLE = f"{_LEAVE_OUT}: all of them come, or as many as `limit` says"
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("offset", "cursor", "include_total"), _WHOLE),
    "limit": f"{_LEAVE_OUT}: all of them come",
    **dict.fromkeys(
        ("include_owner", "include_datasets", "include_members", "include_metadata", "include_links"),
        f"{_LEAVE_OUT}: what Crucible says without it is there",
    ),
    **dict.fromkeys(
        ("multipart", "chunk_size_mb", "max_workers", "sleep_interval", "verbose"),
        f"{_LEAVE_OUT}: that is found out here",
    ),
    "overwrite_existing": f"{_LEAVE_OUT}: a file with the same bytes stays, another one is replaced",
    **dict.fromkeys(("no_files", "no_record"), "use client.datasets.get for the record, .download for the files"),
    "disposition": _LEAVE_OUT,
    "as_networkx": "use crucible_lineage.lineage.LineageGraph.from_api with what comes",
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
        f"{_LEAVE_OUT}, and look through what comes",
    ),
    **dict.fromkeys(("accessible_to_user", "accessible_to_project"), f"{_LEAVE_OUT}: what this key sees comes"),
}


def ours(name: str, known: Collection[str]) -> str:
    """Return our name of an official argument, for a call that has the `known` ones; empty if none of them means it."""
    return next((one for one in SPELLINGS.get(name, ()) if one in known), "")


def instead_of(name: str) -> str:
    """Return what to use instead of an official argument that no call here has; empty if it is none."""
    return INSTEAD.get(name, "")


def taking_official_names(call: FunctionType, subject: str) -> Callable[..., Any]:
    """The call, which also takes arguments under their official names. TypeError, with what to use, for others."""
    code = call.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = known[: code.co_argcount]
    takes_more = bool(code.co_flags & inspect.CO_VARKEYWORDS)  # **fields or **filters, which are looked at there
    required = positional[: code.co_argcount - len(call.__defaults__ or ())]
    candidates = frozenset(required if takes_more else known)  # what has a default may be a field there

    @functools.wraps(call)
    def calling(*args: Any, **kwargs: Any) -> Any:
        if kwargs.keys() <= _set_of(known):
            return call(*args, **kwargs)
        bound = {*positional[: len(args)], *kwargs}
        renamed = {}
        for name, value in kwargs.items():
            meant = name if name in known else ours(name, candidates - bound)
            if not meant and not takes_more:
                hint = instead_of(name) or nearest(name, known[1:], "it takes")
                raise TypeError(f"{subject}.{call.__name__}() takes no {name!r}; {hint}")
            renamed[meant or name] = value
            bound.add(meant or name)
        return call(*args, **renamed)

    return calling


@functools.cache
def _set_of(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)
