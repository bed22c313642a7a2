"""The ingestors, tried from the most to the least specific, and how those of other packages join them.

Another package offers one by an entry point of the group `crucible_lineage.ingestors`: its name is the ingestor's, and
it points to a class that takes no arguments, with `suffixes` (such as `{".spe"}`) and `read(path)`, which gives a
`Found`, or None for a file that is not of its kind. Whatever `read` raises becomes the request's error message.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.findings import Found
from crucible_lineage.server.ingest.formats.hdf5 import read_arrays, read_hdf5, read_nexus, read_scopefoundry
from crucible_lineage.server.ingest.formats.images import MICROSCOPY, read_image
from crucible_lineage.server.ingest.formats.laboratory import LABORATORY
from crucible_lineage.server.ingest.formats.text import read_cds, read_json, read_table, read_workbook

GROUP = "crucible_lineage.ingestors"
HDF5 = frozenset({".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5"})


@dataclass(frozen=True)
class Ingestor:
    """`read` gives None for a file that is not of its kind after all."""

    name: str
    suffixes: Collection[str]
    read: Callable[[Path], Found | None]
    modules: tuple[str, ...] = ()  # that reading imports, and that take long


IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp"})
TEXTS = frozenset({".csv", ".tsv", ".txt", ".dat", ".xy", ".xye", ".asc", ".msa", ".prn"})

INGESTORS: tuple[Ingestor, ...] = (
    Ingestor("ScopeFoundryH5Ingestor", HDF5, read_scopefoundry, ("h5py",)),
    Ingestor("NexusIngestor", HDF5, read_nexus, ("h5py",)),
    Ingestor("H5Ingestor", HDF5, read_hdf5, ("h5py",)),
    Ingestor("ImageIngestor", IMAGES, read_image),
    *(Ingestor(*known) for known in MICROSCOPY),
    *(Ingestor(*known) for known in LABORATORY),
    Ingestor("WorkbookIngestor", frozenset({".xlsx", ".xlsm", ".xls", ".ods"}), read_workbook, ("python_calamine",)),
    Ingestor("NumpyIngestor", frozenset({".npy", ".npz"}), read_arrays, ("numpy",)),
    Ingestor("JsonIngestor", frozenset({".json"}), read_json),
    Ingestor("CDSIngestor", frozenset({".dat", ".txt", ".mrt"}), read_cds),
    Ingestor("DelimitedTextIngestor", TEXTS, read_table),
)


def ingest(
    path: Path, filename: str, wanted: str | None, trying: Callable[[str], object] = lambda _: None
) -> tuple[str | None, Found]:
    """The name of the ingestor that could read the file with what it found, or None with nothing.

    The ingestor named `wanted` comes first, whatever the file's name ends in. `trying` is told each one's name before
    it is used.
    """
    suffix = Path(filename).suffix.lower()
    for ingestor in _in_order(wanted, trying):
        if ingestor.name == wanted or suffix in ingestor.suffixes:
            trying(ingestor.name)
            found = ingestor.read(path)
            if found is not None:
                return ingestor.name, found
    return None, Found({})


class _Names(Collection[str]):
    """The names of all ingestors there are when one looks."""

    def __iter__(self) -> Iterator[str]:
        return iter([*(entry.name for entry in _foreign()), *(ingestor.name for ingestor in INGESTORS)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


INGESTOR_NAMES: Collection[str] = _Names()


def _in_order(wanted: str | None, trying: Callable[[str], object]) -> Iterator[Ingestor]:
    """The one named, then those of other packages, which know a format of their own, then ours."""
    foreign = sorted(_foreign(), key=lambda entry: entry.name != wanted)
    own = sorted(INGESTORS, key=lambda ingestor: ingestor.name != wanted)
    if own[0].name == wanted:
        yield own.pop(0)
    for entry in foreign:
        trying(entry.name)
        if (loaded := _loaded(entry, must=entry.name == wanted)) is not None:
            yield loaded
    yield from own


def _foreign() -> list[EntryPoint]:
    own = {ingestor.name for ingestor in INGESTORS}
    found = {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in own}
    return [found[name] for name in sorted(found)]


def _loaded(entry: EntryPoint, *, must: bool) -> Ingestor | None:
    """The entry point's ingestor. One that cannot be loaded stays out of the way of files that others can read."""
    try:
        ingestor = entry.load()()
        return Ingestor(entry.name, frozenset(ingestor.suffixes), ingestor.read)
    except Exception as error:
        if must:
            raise
        sys.stderr.write(f"{entry.name} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}\n")
        return None


def read(path: Path) -> dict[str, Any]:
    """Fields of the record and metadata. ValueError if nothing here reads such a file.

    A time without its zone is left out: it says no moment.
    """
    name, found = ingest(path, path.name, None)
    if name is None:
        raise ValueError(f"no ingestor reads files like {path.name}")
    fields: dict[str, Any] = dict(found.attributes)
    if "timestamp" in fields and datetime.fromisoformat(fields["timestamp"]).tzinfo is None:
        del fields["timestamp"]
    fields.pop("dataset_name", None)
    fields.pop("data_format", None)
    return {**found.metadata, **fields}
