"""The pictures in README and docs are up to date. Those of the examples are compared where the examples run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.drawn import assert_stored, pictures
from tests.nights import by_night


def test_pictures_of_the_demo(demo_data: Path) -> None:
    assert_stored(pictures.of_the_demo(demo_data))


@by_night("a sweep of its own, for a picture that changes with the demo's")
def test_pictures_of_a_sweep(tmp_path: Path) -> None:
    assert_stored(pictures.of_a_sweep(tmp_path / "data"))


def test_pictures_of_synthetic_data() -> None:
    assert_stored(pictures.of_made_up_data())


def test_every_picture_of_the_docs_is_drawn_by_the_command() -> None:
    assert {path.name for path in pictures.IMAGES.iterdir()} == pictures.ALL


def test_a_picture_without_the_text_of_what_it_shows_is_refused(tmp_path: Path) -> None:
    name = "example-lab6-cell.png"
    Image.open(pictures.IMAGES / name).save(tmp_path / name)

    with pytest.raises(AssertionError, match=f"{name} is not what is drawn now"):
        assert_stored({name: (tmp_path / name).read_bytes()})
