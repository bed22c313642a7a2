"""Pictures in the form that thumbnails travel in."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Protocol

from crucible_lineage.errors import InputError

__all__ = ["Figure", "Picture", "picture_body"]


class Figure(Protocol):
    """What can draw itself into a file, as a matplotlib figure does."""

    def savefig(self, fname: object, **options: object) -> None: ...


Picture = str | Path | bytes | Figure


def picture_body(picture: Picture, name: str | None, default_name: str) -> dict[str, str]:
    """The request body for a picture given as path, as image bytes or as figure (drawn as PNG)."""
    if isinstance(picture, bytes):
        content = picture
    elif isinstance(picture, str | Path):
        path = Path(picture)
        if not path.is_file():
            raise InputError(f"there is no picture {path}; nothing was sent")
        content, default_name = path.read_bytes(), path.name
    elif hasattr(picture, "savefig"):
        drawn = io.BytesIO()
        picture.savefig(drawn, format="png")
        content = drawn.getvalue()
    else:
        raise InputError(f"a thumbnail is a path, image bytes or a figure, not {type(picture).__name__}")
    if not content:
        raise InputError("the picture is empty; nothing was sent")
    return {"thumbnail_name": name or default_name, "thumbnail_b64str": base64.b64encode(content).decode()}
