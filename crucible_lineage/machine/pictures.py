"""Pictures as PNG, without date and version: equal pictures have equal bytes.

The kit that makes results again holds this module, so it imports nothing else of crucible-lineage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

_NAMELESS = "figure"  # the name of a figure that is returned alone
_SAVED = {".png", ".svg", ".pdf", ".eps", ".jpg", ".jpeg", ".tif", ".tiff"}


def save_picture(picture: Any, target: Path | BinaryIO) -> None:
    """Save a figure of matplotlib, or an image of Pillow, as PNG."""
    if hasattr(picture, "savefig"):
        picture.savefig(target, format="png", metadata={"Software": None})
    else:
        picture.save(target, format="png")


def draw_returned(result: object, folders: Mapping[str, Path]) -> tuple[object, tuple[str, ...]]:
    """Save returned figures to files; return the result with file names in their place, and these names.

    `folders` are those of the step's outputs; with several, the result is a mapping from output to mapping. Recognizes
    figures of matplotlib and images of Pillow. Raises FileExistsError if the step has written a file of that name.
    """
    if len(folders) == 1:
        return _save_figures({_NAMELESS: result} if _is_picture(result) else result, next(iter(folders.values())))
    if not isinstance(result, Mapping):
        return result, ()
    names: list[str] = []
    values = dict(result)
    for output in folders.keys() & values.keys():
        values[output], drawn = _save_figures(values[output], folders[output])
        names += drawn
    return values, tuple(names)


def open_figures() -> int:
    """Return how many figures pyplot holds, without importing it: with `show()` or without, until they are closed."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    return len(pyplot.get_fignums()) if pyplot else 0


def shown_note(before: int, folders: Iterable[Path]) -> str:
    """Return the note on figures of pyplot opened since they were `before`, if no file in the folders is a picture."""
    count = open_figures() - before
    if count <= 0 or any(file.suffix.lower() in _SAVED for folder in folders for file in folder.rglob("*")):
        return ""
    figures = "a figure" if count == 1 else f"{count} figures"
    return f"it drew {figures} with pyplot and saved no picture; a returned figure is kept, one that is shown is not"


def _save_figures(result: object, folder: Path) -> tuple[object, tuple[str, ...]]:
    if not isinstance(result, Mapping):
        return result, ()
    named = {key: f"{key}.png" for key, value in result.items() if _is_picture(value)}
    for key, name in named.items():
        if (folder / name).exists():
            raise FileExistsError(f"the figure {key!r} that it returned would replace {name}, which it has written")
        save_picture(result[key], folder / name)
    return {**result, **named}, tuple(named.values())


def _is_picture(value: object) -> bool:
    """Return whether the value is a figure or an image, without importing either library."""
    figure, image = sys.modules.get("matplotlib.figure"), sys.modules.get("PIL.Image")
    return (figure is not None and isinstance(value, figure.Figure)) or (
        image is not None and isinstance(value, image.Image)
    )
