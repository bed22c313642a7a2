"""Nickel EBSD: every point is indexed as published, and the background parent is why."""

from __future__ import annotations

import pytest

from ebsd import index_patterns, orientation_table, remove_background
from ebsd_files import read_patterns
from tests.drawn import assert_stored, pictures
from tests.nights import by_night


def test_nine_of_nine_points_lie_within_half_a_degree_of_the_stored_orientations(ran):
    table = ran("ebsd", "ebsd").metadata("table")

    assert table["points"] == 9
    assert table["within_tolerance"] == 9
    assert table["largest_difference_deg"] < 0.3


@by_night("another run of the example")
def test_without_the_background_parent_most_points_are_lost(example_data, tmp_path):
    patterns = example_data("ebsd") / "patterns.h5"

    index_patterns(patterns, example_data("ebsd") / "nickel_master_20kV.h5", out=tmp_path)
    table = orientation_table(tmp_path / "orientations.csv", patterns, out=tmp_path)

    assert table["within_tolerance"] <= 4


def test_the_table_descends_from_patterns_background_and_master(ran):
    assert ran("ebsd", "ebsd").links("table") == (6, 6)


def test_pictures_of_the_docs_show_this_run(ran):
    assert_stored(pictures.of_an_example("ebsd", ran("ebsd", "ebsd").data))


def test_the_corrected_patterns_are_the_same_bytes_each_time(example_data, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        remove_background(example_data("ebsd") / "patterns.h5", example_data("ebsd") / "background.bmp", out=folder)

    assert (folders[0] / "corrected.h5").read_bytes() == (folders[1] / "corrected.h5").read_bytes()
    kept = read_patterns(folders[0] / "corrected.h5")
    measured = read_patterns(example_data("ebsd") / "patterns.h5")
    assert kept.grid == measured.grid == (3, 3)
    assert kept.centre == pytest.approx(measured.centre)


def test_files_of_another_kind_are_refused_by_name(example_data, tmp_path):
    folder = example_data("ebsd")

    with pytest.raises(ValueError, match=r"nickel_master_20kV\.h5: not a file of backscatter patterns"):
        index_patterns(folder / "nickel_master_20kV.h5", folder / "nickel_master_20kV.h5", out=tmp_path)
    with pytest.raises(ValueError, match=r"patterns\.h5: not a master pattern"):
        index_patterns(folder / "patterns.h5", folder / "patterns.h5", out=tmp_path)
