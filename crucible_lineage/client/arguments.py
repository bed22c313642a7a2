"""Arguments as the official client names them: taken where ours is called otherwise, else told what to use instead.

Names are those of nano-crucible 3.3.0. What is taken so is not declared: type checkers know our own names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import FunctionType
from typing import Any

from crucible_lineage.errors import nearest

__all__ = ["instead_of", "ours", "taking_official_names"]

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
