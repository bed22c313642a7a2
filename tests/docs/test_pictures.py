"""The pictures in README and docs are up to date: the same ids, names and states."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REMEDY = "draw them again: make pictures"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(name: str) -> str:
    return (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")


def test_pictures_of_the_demo(pictures: ModuleType, demo_data: Path) -> None:
    for name, svg in pictures.of_the_demo(demo_data).items():
        assert svg == stored(name), f"{name} is not what is drawn now; {REMEDY}"


def test_pictures_of_a_sweep(pictures: ModuleType, tmp_path: Path) -> None:
    for name, svg in pictures.of_a_sweep(tmp_path / "data").items():
        assert svg == stored(name), f"{name} is not what is drawn now; {REMEDY}"


def test_pictures_of_synthetic_data(pictures: ModuleType) -> None:
    for name, svg in pictures.of_made_up_data().items():
        assert svg == stored(name), f"{name} is not what is drawn now; {REMEDY}"


def test_every_svg_of_the_docs_is_drawn_by_a_command(pictures: ModuleType) -> None:
    """The others are the map (`make map`) and the pictures of the examples, which need their data."""
    others = {"architecture.svg", "example-raman-lineage.svg", "gallery-raman-one.svg", "gallery-ebsd.svg"}
    others |= {"gallery-lab6.svg"}
    source = (ROOT / "docs" / "pictures.py").read_text(encoding="utf-8")
    drawn = {*re.findall(r'"([a-z0-9-]+\.svg)"', source), *(f"size-{size}.svg" for size in pictures.SIZES)}
    assert drawn | others == {path.name for path in (ROOT / "docs" / "images").glob("*.svg")}
