"""Orientations of backscatter patterns, by comparison with patterns projected from a simulated master."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from crucible_lineage.demo.spectra import Array
from crystal import orientations
from ebsd_files import Patterns

__all__ = ["Match", "Matcher", "project"]

COARSE_PIXELS = 20  # side of the patterns that are compared with the whole dictionary
COARSE_BLUR = (
    3.0  # of the master pattern, in its pixels: bands must overlap with those of the nearest in the dictionary
)
COARSE_FILTER, FINE_FILTER = 1.5, 3.0  # in pixels of the pattern: slower changes of brightness are not bands
CANDIDATES, FINALISTS = 20, 3
COARSE_STEP_DEG, FINE_STEP_DEG = 2.0, 0.5
CHUNK = 1000


@dataclass(frozen=True, eq=False)
class Match:
    """An orientation, sample to crystal, and how well its simulated pattern agrees: normalised cross-correlation."""

    orientation: Array
    score: float


class Matcher:
    """Patterns of one scan, matched against a master pattern of a cubic crystal."""

    def __init__(self, patterns: Patterns, master: Array, spacing_deg: float) -> None:
        self.patterns = patterns
        self.master = master
        self.blurred = gaussian_filter(master, COARSE_BLUR)
        self.dictionary = orientations(spacing_deg)
        directions = _directions(patterns.centre.mean(axis=0), COARSE_PIXELS, patterns.tilt_deg)
        chunks = [self.dictionary[start : start + CHUNK] for start in range(0, len(self.dictionary), CHUNK)]
        simulated = (project(self.blurred, np.einsum("nij,pj->npi", chunk, directions)) for chunk in chunks)
        self.entries = np.concatenate([_flat(images, COARSE_PIXELS, COARSE_FILTER) for images in simulated])

    def match(self, index: int) -> Match:
        """Return the orientation of one pattern: refine the nearest of the dictionary, and the best of these again."""
        image, centre = self.patterns.images[index], self.patterns.centre[index]
        size = image.shape[0]
        coarse = _flat(_binned(image, COARSE_PIXELS), COARSE_PIXELS, COARSE_FILTER)[0]
        fine = _flat(image, size, FINE_FILTER)[0]
        nearest = np.argsort(-(self.entries @ coarse), kind="stable")[:CANDIDATES]
        compare = self._comparison(coarse, centre, COARSE_PIXELS, self.blurred, COARSE_FILTER)
        candidates = [_refined(compare, self.dictionary[entry], COARSE_STEP_DEG) for entry in nearest]
        candidates.sort(key=lambda match: -match.score)
        compare = self._comparison(fine, centre, size, self.master, FINE_FILTER)
        finalists = [_refined(compare, match.orientation, FINE_STEP_DEG) for match in candidates[:FINALISTS]]
        return max(finalists, key=lambda match: match.score)

    def simulated(self, index: int, orientation: Array) -> Array:
        """Project the pattern for a point of the scan in an orientation from the master pattern."""
        size = self.patterns.images.shape[1]
        directions = _directions(self.patterns.centre[index], size, self.patterns.tilt_deg)
        return project(self.master, directions @ orientation.T).reshape(size, size)

    def _comparison(
        self, measured: Array, centre: Array, size: int, master: Array, smooth: float
    ) -> Callable[[Array], float]:
        directions = _directions(centre, size, self.patterns.tilt_deg)
        return lambda orientation: float(measured @ _flat(project(master, directions @ orientation.T), size, smooth)[0])


def project(master: Array, directions: Array) -> Array:
    """Return the brightness of a stereographic master pattern along directions of the crystal (last axis x, y, z).

    All 48 symmetries of the cube map the pattern onto itself, so a direction is first brought to 0 <= x <= y <= z.
    """
    x, y, z = np.moveaxis(np.sort(np.abs(directions), axis=-1), -1, 0)
    radius = (len(master) - 1) / 2
    places = [radius + radius * y / (1 + z), radius + radius * x / (1 + z)]
    brightness: Array = map_coordinates(master, places, order=1)
    return brightness


def _directions(centre: Array, size: int, tilt_deg: float) -> Array:
    """Return unit vectors from the sample to each pixel, in the sample's frame: down the detector, right, normal."""
    across = (np.arange(size) + 0.5) / size
    right, up = np.meshgrid((across - centre[0]) / centre[2], (centre[1] - across) / centre[2])
    angle = np.radians(90 - tilt_deg)
    vectors = np.stack(
        [np.sin(angle) - up * np.cos(angle), right, np.cos(angle) + up * np.sin(angle)], axis=-1
    ).reshape(-1, 3)
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _flat(images: Array, size: int, smooth: float) -> Array:
    """Return patterns as rows of mean 0 and length 1, without slow variations."""
    square = images.reshape(-1, size, size)
    bands = square - gaussian_filter(square, (0, smooth, smooth), mode="nearest")
    rows = bands.reshape(len(square), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length: Array = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length == 0, 1, length))


def _binned(image: Array, size: int) -> Array:
    factor = image.shape[0] // size
    if factor * size != image.shape[0]:
        raise ValueError(f"patterns of {image.shape[0]} pixels a side; expected a multiple of {size}")
    return np.asarray(image.reshape(size, factor, size, factor).mean(axis=(1, 3)))


def _refined(compare: Callable[[Array], float], start: Array, step_deg: float) -> Match:
    """Return the best match near an orientation, over small rotations of the crystal."""

    def turned(vector: Array) -> Array:
        return np.asarray(Rotation.from_rotvec(vector).as_matrix() @ start)

    step = np.radians(step_deg)
    options = {"initial_simplex": step * np.vstack([np.zeros(3), np.eye(3)]), "xatol": step / 50, "fatol": 1e-3}
    found = minimize(lambda vector: -compare(turned(vector)), np.zeros(3), method="Nelder-Mead", options=options)
    return Match(turned(found.x), -float(found.fun))
