"""The ingestors, tried from the most to the least specific, and their extension by other packages.

Another package provides one as an entry point of the group `crucible_lineage.ingestors`. The entry point's name is the
ingestor's. It points to a class without arguments that has `suffixes` (such as `{".spe"}`) and `read(path)`, which
returns a `Found`, or None for a file of another kind. An error of `read` becomes the request's error message.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.ingest.formats.findings import Found
from crucible_lineage.server.ingest.formats.hdf5 import read_arrays, read_hdf5, read_nexus, read_scopefoundry
from crucible_lineage.server.ingest.formats.images import MICROSCOPY, read_image
from crucible_lineage.server.ingest.formats.laboratory import LABORATORY
from crucible_lineage.server.ingest.formats.text import read_cds, read_json, read_table, read_workbook

GROUP = "crucible_lineage.ingestors"
HDF5 = frozenset({".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5"})


@dataclass(frozen=True)
class Ingestor:
    """A reader for files with some suffixes; `read` returns None for a file of another kind."""

    name: str
    suffixes: Collection[str]
    read: Callable[[Path], Found | None]
    modules: tuple[str, ...] = ()  # slow imports of `read`


IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp"})
TEXTS = frozenset({".csv", ".tsv", ".txt", ".dat", ".xy", ".xye", ".asc", ".msa", ".prn"})

INGESTORS: tuple[Ingestor, ...] = (
    Ingestor("ScopeFoundryH5Ingestor", HDF5, read_scopefoundry, ("h5py",)),
    Ingestor("NexusIngestor", HDF5, read_nexus, ("h5py",)),
    Ingestor("H5Ingestor", HDF5, read_hdf5, ("h5py",)),
    Ingestor("ImageIngestor", IMAGES, read_image),
    *(Ingestor(*row) for row in MICROSCOPY),
    *(Ingestor(*row) for row in LABORATORY),
    Ingestor("WorkbookIngestor", frozenset({".xlsx", ".xlsm", ".xls", ".ods"}), read_workbook, ("python_calamine",)),
    Ingestor("NumpyIngestor", frozenset({".npy", ".npz"}), read_arrays, ("numpy",)),
    Ingestor("JsonIngestor", frozenset({".json"}), read_json),
    Ingestor("CDSIngestor", frozenset({".dat", ".txt", ".mrt"}), read_cds),
    Ingestor("DelimitedTextIngestor", TEXTS, read_table),
)


def ingest(
    path: Path, filename: str, requested: str | None, on_attempt: Callable[[str], object] = lambda _: None
) -> tuple[str | None, Found]:
    """Return the name of the first ingestor that could read the file with its findings, or None with empty findings.

    The `requested` ingestor is tried first, whatever the file's suffix. `on_attempt` gets the name of each one tried.
    """
    suffix = Path(filename).suffix.lower()
    for ingestor in _in_order(requested, on_attempt):
        if ingestor.name == requested or suffix in ingestor.suffixes:
            on_attempt(ingestor.name)
            findings = ingestor.read(path)
            if findings is not None:
                return ingestor.name, findings
    return None, Found({})


def ingestor_names() -> list[str]:
    """Return the names of all ingestors, those of other packages first."""
    return [*(entry.name for entry in _foreign()), *(ingestor.name for ingestor in INGESTORS)]


def _in_order(requested: str | None, on_attempt: Callable[[str], object]) -> Iterator[Ingestor]:
    """Yield the requested ingestor, then those of other packages, which know their own formats, then ours."""
    foreign = sorted(_foreign(), key=lambda entry: entry.name != requested)
    own = sorted(INGESTORS, key=lambda ingestor: ingestor.name != requested)
    if own[0].name == requested:
        yield own.pop(0)
    for entry in foreign:
        on_attempt(entry.name)
        if (loaded := _load(entry, required=entry.name == requested)) is not None:
            yield loaded
    yield from own


def _foreign() -> list[EntryPoint]:
    own = {ingestor.name for ingestor in INGESTORS}
    by_name = {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in own}
    return [by_name[name] for name in sorted(by_name)]


def _load(entry: EntryPoint, *, required: bool) -> Ingestor | None:
    """Load the ingestor of an entry point. One that fails to load is skipped, unless it is required."""
    try:
        ingestor = entry.load()()
        return Ingestor(entry.name, frozenset(ingestor.suffixes), ingestor.read)
    except Exception as error:
        if required:
            raise
        sys.stderr.write(f"{entry.name} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}\n")
        return None


def read(path: Path) -> JsonObject:
    """Return the fields and metadata of a file. Raises ValueError if no ingestor can read it.

    A time without a zone is omitted, since it is ambiguous.
    """
    name, findings = ingest(path, path.name, None)
    if name is None:
        raise ValueError(f"no ingestor reads files like {path.name}")
    own_names = ("dataset_name", "data_format")
    fields = {key: value for key, value in findings.attributes.items() if key not in own_names}
    if "timestamp" in fields and datetime.fromisoformat(fields["timestamp"]).tzinfo is None:
        del fields["timestamp"]
    return {**findings.metadata, **fields}
