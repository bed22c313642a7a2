"""Datasets as one Crucible holds them, with all that is in them, and what another one lacks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import FileRecord, Thumbnail
from crucible_lineage.core.datasets import in_threads
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import NotFoundError
from crucible_lineage.provenance.record import read_record
from crucible_lineage.provenance.schema import FilesRecord, StepRecord
from crucible_lineage.session import Session


@dataclass(frozen=True)
class HeldDataset:
    """A dataset as a Crucible holds it, all but the bytes of its files. `dataset` has metadata and links."""

    dataset: Mapping[str, Any]
    keywords: tuple[str, ...] = ()
    files: tuple[FileRecord, ...] = ()
    pictures: tuple[Thumbnail, ...] = ()

    @property
    def mfid(self) -> str:
        """Its id."""
        return str(self.dataset["unique_id"])

    @property
    def name(self) -> str:
        """Return its name, or else its id."""
        return str(self.dataset.get("dataset_name") or self.mfid)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Its scientific metadata; empty if it has none."""
        return self.dataset.get("scientific_metadata") or {}

    @property
    def record(self) -> StepRecord | FilesRecord | None:
        """Its provenance record, if it has one that can be read; long ones are not whole."""
        return read_record(self.metadata)


@dataclass(frozen=True)
class Conflict:
    """Why a dataset cannot be brought: what is there under its id, or in it, is something else."""

    mfid: str
    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """The form that is printed."""
        return {"mfid": self.mfid, "name": self.name, "reason": self.reason}


@dataclass(frozen=True)
class MissingParts:
    """What a dataset lacks there. `whole`: it is not there, or was begun and not finished."""

    whole: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, SlotClaim] = field(default_factory=dict)
    equal_parents: Mapping[str, str] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()
    parents: Mapping[str, str | None] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    pictures: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self != MissingParts()

    @property
    def in_words(self) -> str:
        """Return what it lacks, for people."""
        if self.whole:
            return "all of it"
        named = {
            "fields": sorted(self.fields),
            "metadata": sorted(self.metadata),
            "files": sorted(self.files),
            "keywords": sorted(self.keywords),
            "parents": sorted({**self.parents, **self.equal_parents}),
            "samples": sorted(self.samples),
            "pictures": sorted(self.pictures),
            "which slots it holds": ["as of later runs"] if self.slots else [],
        }
        return "; ".join(f"{name}: {', '.join(values)}" for name, values in named.items() if values)


@dataclass(frozen=True)
class CopyComparison:
    """A dataset here beside the one of its id there: what that lacks, what contradicts, and what stands as it is there.

    `differs` are in words what two registrations of the same say differently: the one that was there first stands.
    """

    lacking: MissingParts = MissingParts()
    conflicts: tuple[Conflict, ...] = ()
    differs: tuple[str, ...] = ()


def linked(dataset: Mapping[str, Any], kind: str) -> dict[str, str | None]:
    """{id: relationship} of its parents of that kind, `dataset` or `sample`; of a dataset, the samples it is about."""
    links = dataset.get("links") or ()
    wanted = [link for link in links if link["resource_type"] == kind]
    if dataset.get("resource_type") == kind:
        wanted = [link for link in wanted if link.get("direction") == "source"]
    return {link["unique_id"]: link.get("relationship_type") for link in wanted}


def derived_parents(held: Mapping[str, Any]) -> set[str]:
    """All that have to be there before it: what it is linked to, and what its record says was used."""
    record = read_record(held.get("scientific_metadata"))
    return {*linked(held, "dataset"), *(record.all_parents if record else ())}


def has_bytes(file: FileRecord) -> bool:
    """True if the Crucible has the file itself, and not only a record of it."""
    return file.storage_path is not None and (file.storage_backend or "gcs") == "gcs"


def read_held(client: CrucibleClient, dataset: Mapping[str, object]) -> HeldDataset:
    """The dataset, read with metadata and links, with all else that is in it."""
    mfid = str(dataset["unique_id"])
    return HeldDataset(
        dataset,
        tuple(keyword.keyword for keyword in client.datasets.get_keywords(mfid)),
        tuple(client.files.list(mfid)),
        tuple(client.datasets.get_thumbnails(mfid)),
    )


def read_samples(session: Session, mfids: Iterable[str]) -> dict[str, Mapping[str, object]]:
    """Read these samples and all that they were made of, with metadata and links, as far as this key may see them."""
    found: dict[str, Mapping[str, Any]] = {}
    wanted = set(mfids)
    while wanted:
        for sample in in_threads(lambda mfid: _sample(session, mfid), sorted(wanted)):
            if sample is not None:
                found[str(sample["unique_id"])] = sample
        parents = {parent for mfid in wanted & found.keys() for parent in linked(found[mfid], "sample")}
        wanted = parents - found.keys() - wanted
    return found


def _sample(session: Session, mfid: str) -> Mapping[str, object] | None:
    try:
        return session.client.samples.get(mfid, include_metadata=True, include_links=True).model_dump()
    except NotFoundError:
        return None
