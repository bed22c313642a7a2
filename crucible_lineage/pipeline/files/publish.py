"""Results copied to where a declaration says they are published, as gs://bucket/prefix/, once each.

Publishing follows registration: what is there in a run's end is published, whoever made it and when, so that a run
which died in between, or a declaration to which `publish` was added later, leaves nothing out.
"""

from __future__ import annotations

from dataclasses import replace

from crucible_lineage.pipeline.files.fetch import cached_file
from crucible_lineage.pipeline.spec.pipeline import Publish
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session

__all__ = ["publish"]


def publish(dataset: DatasetRef, place: Publish, session: Session) -> None:
    """The dataset's files are at `place`, each as MFID/NAME, and its metadata say so.

    Nothing there is overwritten. InputError if other content has one of the addresses.
    """
    if session.store.is_published(dataset.mfid, place.to):
        return
    from crucible_lineage.pipeline.files.remote import open_source  # few pipelines publish, and each only once

    source = open_source(place.to.partition("://")[0], place.block)
    sent = {}
    for file in dataset.files:
        path = cached_file(dataset, file, session)
        url = f"{place.to.rstrip('/')}/{dataset.mfid}/{file.name}"
        sent[file.name] = replace(source.put(path, url, session.store.checksums(path)), block=place.block).to_json()
    session.client.metadata.merge(dataset.mfid, {"published": {place.to: sent}})
    session.store.note_published(dataset.mfid, place.to)
