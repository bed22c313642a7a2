"""Steps for electron backscatter diffraction: subtract the background, index the patterns, compare orientations."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crucible_lineage.demo.spectra import decimals, write_csv
from crucible_lineage.step import step
from crystal import bunge_angles, disorientation_deg, from_bunge
from ebsd_figures import draw_map, draw_matches, draw_patterns
from ebsd_files import (
    read_background,
    read_master,
    read_patterns,
    stored_orientations,
    write_patterns,
)
from ebsd_match import Matcher

__all__ = ["index_patterns", "orientation_table", "remove_background"]

ORIENTATION_COLUMNS = ("point", "phi1_deg", "Phi_deg", "phi2_deg", "score")


@step(measurement="EBSD", data_type="corrected patterns", thumbnail="*.png")
def remove_background(patterns: Path, background: Path, *, out: Path) -> dict[str, Any]:
    """Subtract the static background of detector and beam: `corrected.h5`, with a picture."""
    measured = read_patterns(patterns)
    static = read_background(background)
    if static.shape != measured.images.shape[1:]:
        raise ValueError(f"{background.name}: {static.shape} pixels, but the patterns have {measured.images.shape[1:]}")
    means = measured.images.mean(axis=(1, 2), keepdims=True)
    corrected = replace(measured, images=measured.images - static * means / static.mean())
    write_patterns(out / "corrected.h5", corrected)
    draw_patterns(out / "corrected.png", measured.images, static, corrected.images)
    kept = corrected.images.std(axis=(1, 2)) / measured.images.std(axis=(1, 2))
    return {"patterns": len(means), "contrast_left_percent": round(100 * float(kept.mean()), 1)}


@step(measurement="EBSD", data_type="orientations", thumbnail="*.png")
def index_patterns(patterns: Path, master: Path, *, spacing_deg: float = 4.0, out: Path) -> dict[str, Any]:
    """Index each point, in `orientations.csv`: Euler angles by Bunge, sample to crystal.

    Patterns simulated from the master pattern for orientations `spacing_deg` apart are compared with each measured one,
    the most alike are refined. The crystal is cubic.
    """
    if not 2 <= spacing_deg <= 10:
        raise ValueError(f"spacing_deg {spacing_deg:g}: between 2 (a minute and more) and 10 (misses orientations)")
    measured = read_patterns(patterns)
    matcher = Matcher(measured, read_master(master), spacing_deg)
    matches = [matcher.match(index) for index in range(len(measured.images))]
    rows = (
        (str(point), *(decimals(angle, 3) for angle in bunge_angles(match.orientation)), decimals(match.score, 4))
        for point, match in enumerate(matches)
    )
    write_csv(out / "orientations.csv", ORIENTATION_COLUMNS, rows)
    simulated = [matcher.simulated(index, match.orientation) for index, match in enumerate(matches)]
    draw_matches(out / "matches.png", measured, simulated, [match.score for match in matches])
    scores = [match.score for match in matches]
    return {
        "points": len(matches),
        "dictionary": len(matcher.dictionary),
        "mean_score": round(float(np.mean(scores)), 3),
        "lowest_score": round(min(scores), 3),
    }


@step(measurement="EBSD", data_type="orientation table", thumbnail="*.png")
def orientation_table(orientations: Path, reference: Path, *, tolerance_deg: float = 0.5, out: Path) -> dict[str, Any]:
    """Compare the orientations with those stored with the patterns: `table.csv`, and a map of crystal directions."""
    with orientations.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    grid = read_patterns(reference).grid
    stored = stored_orientations(reference)
    if len(rows) != len(stored):
        raise ValueError(f"{orientations.name}: {len(rows)} points, but {reference.name} holds {len(stored)}")
    found = [from_bunge(*np.radians([float(row[name]) for name in ORIENTATION_COLUMNS[1:4]])) for row in rows]
    differences = [disorientation_deg(here, there) for here, there in zip(found, stored, strict=True)]
    write_csv(
        out / "table.csv",
        (*ORIENTATION_COLUMNS, "from_stored_deg"),
        (
            (*(row[name] for name in ORIENTATION_COLUMNS), decimals(off, 3))
            for row, off in zip(rows, differences, strict=True)
        ),
    )
    draw_map(out / "map.png", found, differences, grid, tolerance_deg)
    return {
        "points": len(found),
        "within_tolerance": sum(difference <= tolerance_deg for difference in differences),
        "tolerance_deg": tolerance_deg,
        "median_difference_deg": round(float(np.median(differences)), 3),
        "largest_difference_deg": round(max(differences), 3),
    }
