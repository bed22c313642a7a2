"""Where the modules of steps are looked for: what is installed, then the folder of their declaration, then others'.

Two declarations may each have a module of one name beside them; each gets its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["search_first", "search_path"]

_searched: dict[str, None] = {}  # folders of declarations that the search was given, the last one at the end


def search_first(folder: Path) -> None:
    """Modules are looked for in this folder before those of other declarations, and after all that is installed.

    What these have loaded under a name that stands for another module here is forgotten, with all from beside it.
    """
    name = str(folder)
    if name in sys.path and (name not in _searched or name == next(reversed(_searched))):
        return
    others = [other for other in _searched if other != name]
    if others:
        _forget_namesakes(folder, others)
    sys.path[:] = search_path(folder)
    _searched.pop(name, None)
    _searched[name] = None


def search_path(folder: Path) -> list[str]:
    """The search path for whoever runs a step of a declaration in this folder."""
    name = str(folder)
    if name in sys.path and name not in _searched:
        return list(sys.path)
    others = [entry for entry in reversed(_searched) if entry != name]
    return [*(entry for entry in sys.path if entry not in _searched), name, *others]


def _forget_namesakes(folder: Path, others: list[str]) -> None:
    loaded: dict[str, list[str]] = {other: [] for other in others}
    for name, module in list(sys.modules.items()):
        if (home := _home(name, module)) in loaded:
            loaded[home].append(name)
    for names in loaded.values():
        tops = {name.partition(".")[0] for name in names}
        if any((folder / f"{top}.py").is_file() or (folder / top).is_dir() for top in tops):
            for name in names:
                del sys.modules[name]


def _home(name: str, module: object) -> str:
    """The folder that a module was found in: that of its outermost package, if it is in one."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return ""
    levels = name.count(".") + (2 if file.endswith(f"{os.sep}__init__.py") else 1)
    return file.rsplit(os.sep, levels)[0]
