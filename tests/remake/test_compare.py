"""How a file differs from the recorded one, and what is said of a step that is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from crucible_lineage.remake.compare import ALIKE, DIFFERS, Rules, compare_files
from tests.golden.stored import run_examples


@pytest.mark.parametrize("name", ["compared", "remade"])
def test_the_examples_hold(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))


def picture(path: Path, family: str, title: str = "Raman shift", level: int = 6) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1, 2], [1, 3, 2])
    axes.set_title(title, family=family)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_family(family)
    figure.savefig(path, metadata={"Software": None}, pil_kwargs={"compress_level": level})


def test_a_picture_in_another_font_is_found_and_one_in_other_bytes_is_alike(tmp_path: Path) -> None:
    for name, family, level in (("old", "DejaVu Sans", 6), ("packed", "DejaVu Sans", 1), ("serif", "DejaVu Serif", 6)):
        picture(tmp_path / f"{name}.png", family, level=level)
    assert (tmp_path / "old.png").read_bytes() != (tmp_path / "packed.png").read_bytes()
    same = compare_files("a.png", tmp_path / "old.png", tmp_path / "packed.png", Rules())
    assert (same.verdict, same.said) == (ALIKE, "the same pixels in other bytes")
    other = compare_files("a.png", tmp_path / "old.png", tmp_path / "serif.png", Rules())
    assert other.verdict == DIFFERS
    assert "of its pixels differ visibly, in columns" in other.said
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "old.png").read_bytes()[:-400])
    assert compare_files("a.png", tmp_path / "old.png", broken, Rules()).verdict == DIFFERS
