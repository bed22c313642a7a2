"""Thumbnails as tasks."""

from __future__ import annotations

from pathlib import Path

from crucible_lineage.client.dataset.contents import Picture, picture_body
from crucible_lineage.client.models import Thumbnail
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = ["add_thumbnail", "get_thumbnails"]


@api_task("thumbnail {thumbnail_name} of {dsid}")
def add_thumbnail(
    dsid: str, thumbnail: Picture, thumbnail_name: str | None = None, *, crucible: Crucible | None = None
) -> int:
    """The number of the thumbnail of that name, which shows this picture: an image file, image bytes, or a figure.

    One of the same name is not added twice; if it shows something else, it shows this from now on.
    """
    client = session_for(crucible).client
    body = picture_body(thumbnail, thumbnail_name, f"{dsid}_thumbnail.png")
    name, content = body["thumbnail_name"], body["thumbnail_b64str"]
    for known in client.datasets.get_thumbnails(dsid):
        if known.thumbnail_name == name:
            same = known.thumbnail_b64str == content
            return known.id if same else client.datasets.update_thumbnail(dsid, known.id, picture=thumbnail).id
    picture = Path(thumbnail) if isinstance(thumbnail, str) else thumbnail
    return client.datasets.add_thumbnail(dsid, picture, name=name).id


@api_task("thumbnails of {dsid}")
def get_thumbnails(dsid: str, *, crucible: Crucible | None = None) -> list[Thumbnail]:
    """The thumbnails of the dataset, with their pictures in base64."""
    return session_for(crucible).client.datasets.get_thumbnails(dsid)
