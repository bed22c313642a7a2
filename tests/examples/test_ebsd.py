"""Nickel EBSD: every point is indexed as published, and the background parent is why."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crystal import (
    CUBE,
    bunge_angles,
    disorientation_deg,
    from_bunge,
    inverse_pole_colour,
    orientations,
)
from ebsd import index_patterns, orientation_table, remove_background
from ebsd_files import read_master, read_patterns
from ebsd_match import project
from tests.drawn import assert_stored, pictures
from tests.nights import by_night

RANDOM = Rotation.random(200, rng=np.random.default_rng(7)).as_matrix()


def test_orientations_that_a_cube_cannot_tell_apart_do_not_differ():
    for symmetry in Rotation.from_quat(CUBE).as_matrix():
        assert disorientation_deg(symmetry @ RANDOM[0], RANDOM[0]) == pytest.approx(0, abs=1e-5)


def test_a_turn_of_three_degrees_is_three_degrees():
    turn = Rotation.from_rotvec([0, np.radians(3), 0]).as_matrix()

    assert disorientation_deg(turn @ RANDOM[0], RANDOM[0]) == pytest.approx(3)


def test_euler_angles_give_the_orientation_again():
    for orientation in RANDOM[:20]:
        assert from_bunge(*np.radians(bunge_angles(orientation))) == pytest.approx(orientation, abs=1e-9)


def test_the_dictionary_leaves_no_orientation_far_from_its_nearest_entry():
    entries = orientations(8.0)
    turned = np.einsum("sij,njk->snik", Rotation.from_quat(CUBE).as_matrix(), entries)

    for orientation in RANDOM:
        cosine = (np.einsum("snij,ij->sn", turned, orientation).max() - 1) / 2
        assert np.degrees(np.arccos(min(1.0, cosine))) < 8.0


def test_the_poles_have_the_customary_colours():
    along = {(0, 0, 1): (1, 0, 0), (1, 0, 1): (0, 1, 0), (1, 1, 1): (0, 0, 1)}
    for direction, colour in along.items():
        normal = np.array(direction) / np.linalg.norm(direction)
        orientation = np.stack([normal, normal, normal], axis=1)
        assert inverse_pole_colour(orientation) == pytest.approx(colour, abs=1e-6)


def test_a_simulated_pattern_is_the_same_for_all_that_the_cube_cannot_tell_apart(example_data):
    master = read_master(example_data("ebsd") / "nickel_master_20kV.h5")
    directions = Rotation.random(50, rng=np.random.default_rng(1)).as_matrix()[:, 0]

    for symmetry in Rotation.from_quat(CUBE).as_matrix():
        assert project(master, directions @ symmetry.T) == pytest.approx(project(master, directions))


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
