"""Datasets at one Crucible with all of their parts, and the parts that another one lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import FileRecord, Thumbnail
from crucible_lineage.core.datasets import in_threads
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import ForbiddenError, NotFoundError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.provenance.record import read_record
from crucible_lineage.provenance.schema import FilesRecord, StepRecord
from crucible_lineage.session import Session


@dataclass(frozen=True)
class HeldDataset:
    """A dataset at a Crucible without the bytes of its files. `dataset` has metadata and links."""

    dataset: JsonMapping
    keywords: tuple[str, ...] = ()
    files: tuple[FileRecord, ...] = ()
    pictures: tuple[Thumbnail, ...] = ()

    @property
    def mfid(self) -> str:
        """Its id."""
        return str(self.dataset["unique_id"])

    @property
    def name(self) -> str:
        """Its name, or else its id."""
        return str(self.dataset.get("dataset_name") or self.mfid)

    @property
    def metadata(self) -> JsonMapping:
        """Its scientific metadata; empty if it has none."""
        return self.dataset.get("scientific_metadata") or {}

    @property
    def record(self) -> StepRecord | FilesRecord | None:
        """Its provenance record, if that is readable; long ones are not whole."""
        return read_record(self.metadata)


@dataclass(frozen=True)
class Conflict:
    """Reason why a dataset cannot be copied: its counterpart at the target differs."""

    mfid: str
    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON that commands print."""
        return {"mfid": self.mfid, "name": self.name, "reason": self.reason}


@dataclass(frozen=True)
class MissingParts:
    """Parts that a dataset lacks at the target. `everything`: it does not exist there, or is unfinished."""

    everything: bool = False
    fields: JsonMapping = field(default_factory=dict)
    metadata: JsonMapping = field(default_factory=dict)
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
        """The missing parts in words."""
        if self.everything:
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
    """Comparison of a dataset with its counterpart at the target: missing parts, conflicts, and tolerated differences.

    `differs` describes where two registrations of the same result differ: the target keeps its own.
    """

    missing: MissingParts = MissingParts()
    conflicts: tuple[Conflict, ...] = ()
    differs: tuple[str, ...] = ()


def linked(dataset: JsonMapping, kind: str) -> dict[str, str | None]:
    """Return {id: relationship} of its parents of a kind, `dataset` or `sample`; of a dataset, also its samples."""
    links = [link for link in dataset.get("links") or () if link["resource_type"] == kind]
    if dataset.get("resource_type") == kind:
        links = [link for link in links if link.get("direction") == "source"]
    return {link["unique_id"]: link.get("relationship_type") for link in links}


def derived_parents(held: JsonMapping) -> set[str]:
    """Return the datasets that must be copied before it: its linked parents, and those in its record."""
    record = HeldDataset(held).record
    return {*linked(held, "dataset"), *(record.all_parents if record else ())}


def read_held(client: CrucibleClient, dataset: Mapping[str, object]) -> HeldDataset:
    """Read the other parts of a dataset that was read with metadata and links."""
    mfid = str(dataset["unique_id"])
    return HeldDataset(
        dataset,
        tuple(keyword.keyword for keyword in client.datasets.get_keywords(mfid)),
        tuple(client.files.list(mfid)),
        tuple(client.datasets.get_thumbnails(mfid)),
    )


def read_samples(session: Session, mfids: Iterable[str]) -> dict[str, Mapping[str, object]]:
    """Read these samples and all of their ancestors that this key may see, with metadata and links."""
    samples: dict[str, JsonMapping] = {}
    waiting = set(mfids)
    while waiting:
        for sample in in_threads(lambda mfid: _sample(session, mfid), sorted(waiting)):
            if sample is not None:
                samples[str(sample["unique_id"])] = sample
        parents = {parent for mfid in waiting & samples.keys() for parent in linked(samples[mfid], "sample")}
        waiting = parents - samples.keys() - waiting
    return samples


def _sample(session: Session, mfid: str) -> Mapping[str, object] | None:
    try:
        return session.client.samples.get(mfid, include_metadata=True, include_links=True).model_dump()
    except (ForbiddenError, NotFoundError):
        return None
