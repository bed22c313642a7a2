"""What stands at either end: datasets and samples with all that is in them, read from a Crucible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crucible_lineage.client import CrucibleClient
from crucible_lineage.core.datasets import in_threads
from crucible_lineage.errors import NotFoundError
from crucible_lineage.exchange.model import Held, linked
from crucible_lineage.session import Session

__all__ = ["read_held", "read_samples"]


def read_held(client: CrucibleClient, dataset: Mapping[str, object]) -> Held:
    """The dataset, read with metadata and links, with all else that is in it."""
    mfid = str(dataset["unique_id"])
    return Held(
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
