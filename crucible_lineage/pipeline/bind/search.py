"""Where the modules of steps are looked for: what is installed, then the folder of their declaration, then others'.

Two declarations may each have a module of one name beside them; each gets its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["search_first", "search_path"]

_searched: list[str] = []  # folders of declarations that the search was given, the last one first


def search_first(folder: Path) -> None:
    """Modules are looked for in this folder before those of other declarations, and after all that is installed.

    What these have loaded under a name that stands for another module here is forgotten, with all from beside it.
    """
    name = str(folder)
    if name in sys.path and (name not in _searched or name == _searched[0]):
        return
    for other in _searched:
        if other != name and _has_names_of(folder, other):
            _forget(other, name)
    sys.path[:] = [*(entry for entry in sys.path if entry not in {*_searched, name}), name]
    _searched[:] = [name, *(other for other in _searched if other != name)]
    sys.path.extend(_searched[1:])


def search_path(folder: Path) -> list[str]:
    """The search path for whoever runs a step of a declaration in this folder."""
    name = str(folder)
    if name not in _searched:
        return list(sys.path)
    others = [entry for entry in _searched if entry != name]
    return [*(entry for entry in sys.path if entry not in {*others, name}), name, *others]


def _has_names_of(folder: Path, other: str) -> bool:
    """True if the folder has another module under a name that was loaded from the other one."""
    names = {name.partition(".")[0] for name in _loaded_from(other, str(folder))}
    return any((folder / f"{name}.py").is_file() or (folder / name).is_dir() for name in names)


def _forget(other: str, folder: str) -> None:
    for name in _loaded_from(other, folder):
        del sys.modules[name]


def _loaded_from(other: str, folder: str) -> list[str]:
    """The modules whose files lie below the one folder and not below the other, if that lies in it."""
    inner = folder if Path(folder).is_relative_to(other) else None
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(other) and not (inner and Path(file).is_relative_to(inner)):
            found.append(name)
    return found
