"""What is wrong with the inputs of a declaration: files, headers, filters and partners that there are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from crucible_lineage.errors import InputError, nearest
from crucible_lineage.pipeline.bind.dimensions import is_field, unknown_field
from crucible_lineage.pipeline.declare.yaml import Location
from crucible_lineage.pipeline.files.remote import source_fault
from crucible_lineage.pipeline.functions.header import header_function
from crucible_lineage.pipeline.spec.inputs import (
    EachInput,
    FileInput,
    PipelineInput,
    ResultInput,
    SelectInput,
)
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec

__all__ = ["input_faults"]

Faults = Iterator[tuple[Location, str]]


def input_faults(spec: PipelineSpec, written: dict[str, Any], is_unread: Callable[[str], bool]) -> Faults:
    """Each with where it stands. `written` is the declaration as it was read, also what could not be understood of it.

    `is_unread` says of a name whether it may be declared by what could not be.
    """
    given = written.get("inputs")
    for name, declared in spec.inputs.items():
        entries = declared.each if isinstance(declared, EachInput) else (declared,)
        said = given.get(name) if isinstance(given, dict) else None
        undecided = isinstance(said, dict) and "optional" in said  # it says so, rightly or not
        for index, entry in enumerate(entries):
            place = ("inputs", name, *(("each", index) if isinstance(declared, EachInput) else ()))
            if isinstance(entry, FileInput):
                yield from (((*place, "file"), told) for told in _file_faults(entry, undecided=undecided))
                yield from (((*place, "header"), told) for told in _header_faults(entry))
        if isinstance(declared, ResultInput) and not declared.path.is_file():
            yield ("inputs", name, "pipeline"), f"there is no file {declared.path}"
        if isinstance(declared, SelectInput):
            yield from _filter_faults(("inputs", name, "select"), declared)
        yield from ((("inputs", name, "match"), told) for told in _partner_faults(spec, name, declared, is_unread))


def _filter_faults(place: Location, declared: SelectInput) -> Faults:
    # The client costs a third of a second; who selects nothing does not wait for it.
    from crucible_lineage.client.filters import DatasetFilters, sent_filters

    for key, value in declared.filters.items():
        try:
            sent_filters({key: value}, DatasetFilters)
        except InputError as error:
            yield (*place, key), str(error).replace("\n", "; ")


def _file_faults(declared: FileInput, *, undecided: bool) -> Iterator[str]:
    """Files that are named are there, and a pattern fits one, unless it is `optional`."""
    paths = declared.paths
    yield from filter(None, map(source_fault, declared.remote))
    if not paths and not undecided and not declared.remote:
        yield f"no file fits {declared.file!r} in {declared.folder}; if it may come later, add `optional: true`"
    if declared.optional and not declared.each and paths:
        yield from (f"there is no file {path}, and others of this dataset are there" for path in declared.absent)
    for path in paths:
        if path.is_dir():
            yield f"{path} is a folder; name its files, as in {path.name}/*"
        elif not path.is_file():
            yield f"there is no file {path}"


def _header_faults(declared: FileInput) -> Iterator[str]:
    if declared.header is not None:
        try:
            header_function(declared.header, declared.folder)
        except InputError as error:
            yield str(error)


def _partner_faults(
    spec: PipelineSpec, name: str, declared: PipelineInput, is_unread: Callable[[str], bool]
) -> Iterator[str]:
    partner = declared.partner
    if partner is None:
        return
    each = [other for other, given in spec.inputs.items() if given.each and not given.match and other != name]
    if partner not in each and not is_unread(partner):
        yield f"it is matched with {partner!r}, which is no input with `each`; {nearest(partner, each)}"
    for field in (declared.match or {}).get(partner, ()):
        if not is_field(field):
            yield unknown_field(field)
