"""A laboratory of steps in a folder of its own, to be changed and imported afresh."""

from __future__ import annotations

import ast
import importlib
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint

_numbers = itertools.count()


class Laboratory:
    """A copy of the laboratory in a package of its own name. Edits change its files; looking imports it afresh."""

    def __init__(self, folder: Path) -> None:
        self.package = f"laboratory_{next(_numbers)}"
        self.folder = folder / self.package
        shutil.copytree(Path(__file__).parent / "laboratory", self.folder, ignore=shutil.ignore_patterns("__pycache__"))

    def edit(self, file: str, old: str, new: str) -> None:
        """The only place in the file that reads `old` reads `new`."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def rewrite(self, file: str, change: Callable[[str], str]) -> None:
        """The file's text is what `change` makes of it."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        changed = change(text)
        assert changed != text
        path.write_text(changed, encoding="utf-8")

    def module(self, name: str = "steps") -> ModuleType:
        """A module of the laboratory."""
        return importlib.import_module(f"{self.package}.{name}")

    def fingerprint(self, name: str = "steps", function: str = "analyze") -> Fingerprint:
        """The fingerprint of its step."""
        return code_fingerprint(getattr(self.module(name), function))


@pytest.fixture
def new_laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Laboratory]]:
    """Makes laboratories."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield lambda: Laboratory(tmp_path)
    for name in [name for name in sys.modules if name.startswith("laboratory_")]:
        del sys.modules[name]


@pytest.fixture
def laboratory(new_laboratory: Callable[[], Laboratory]) -> Laboratory:
    """A laboratory, not yet imported."""
    return new_laboratory()


@pytest.fixture
def module_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a text as a module of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made: list[str] = []

    def imported(text: str) -> ModuleType:
        name = f"module_{next(_numbers)}"
        made.append(name)
        ast.parse(text)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield imported
    for name in made:
        sys.modules.pop(name, None)
