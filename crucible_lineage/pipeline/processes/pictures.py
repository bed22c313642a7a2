"""Figures that a step returns: written beside its files as PNG, so that they are pictures of its result."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw_returned"]

_NAMELESS = "figure"  # of one that is returned alone


def draw_returned(result: object, folders: Mapping[str, Path]) -> tuple[object, tuple[str, ...]]:
    """The result with the name of a file in place of each figure, and these names.

    `folders` are those of the step's outputs; of several, the result is a mapping from output to mapping. Figures of
    matplotlib and images of Pillow are recognised. FileExistsError if the step has written a file of that name itself.
    """
    if len(folders) == 1:
        return _drawn({_NAMELESS: result} if _is_picture(result) else result, next(iter(folders.values())))
    if not isinstance(result, Mapping):
        return result, ()
    names: list[str] = []
    values = dict(result)
    for output in folders.keys() & values.keys():
        values[output], drawn = _drawn(values[output], folders[output])
        names += drawn
    return values, tuple(names)


def _drawn(result: object, folder: Path) -> tuple[object, tuple[str, ...]]:
    if not isinstance(result, Mapping):
        return result, ()
    named = {key: f"{key}.png" for key, value in result.items() if _is_picture(value)}
    for key, name in named.items():
        if (folder / name).exists():
            raise FileExistsError(f"the figure {key!r} that it returned would replace {name}, which it has written")
        _save(result[key], folder / name)
    return {**result, **named}, tuple(named.values())


def _is_picture(value: object) -> bool:
    """True for a figure or an image; neither library is imported to find out."""
    figure, image = sys.modules.get("matplotlib.figure"), sys.modules.get("PIL.Image")
    return (figure is not None and isinstance(value, figure.Figure)) or (
        image is not None and isinstance(value, image.Image)
    )


def _save(picture: Any, path: Path) -> None:
    """Without a date or a version in it: equal figures are equal bytes."""
    if hasattr(picture, "savefig"):
        picture.savefig(path, metadata={"Software": None})
    else:
        picture.save(path)
