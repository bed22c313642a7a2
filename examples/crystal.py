"""Orientations of a cubic crystal: from Euler angles and back, sampled evenly, compared under the cube's symmetry."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from crucible_lineage.demo.spectra import Array

__all__ = ["bunge_angles", "disorientation_deg", "from_bunge", "inverse_pole_colour", "orientations"]

CUBE: Array = Rotation.create_group("O").as_quat()  # the 24 rotations that map a cube onto itself; scalar last


def from_bunge(phi1: float, phi: float, phi2: float) -> Array:
    """Return the matrix from the sample's to the crystal's frame; angles in radians (Bunge, z-x-z)."""
    matrix: Array = Rotation.from_euler("ZXZ", [phi1, phi, phi2]).as_matrix().T
    return matrix


def bunge_angles(orientation: Array) -> Array:
    """Return phi1, Phi, phi2 in degrees, within 0..360, 0..180 and 0..360."""
    angles: Array = Rotation.from_matrix(orientation.T).as_euler("ZXZ", degrees=True)
    return angles % 360


def disorientation_deg(first: Array, second: Array) -> float:
    """Return the smallest angle between two orientations, over all symmetries of the cube."""
    between = Rotation.from_matrix(first @ second.T).as_quat()
    cosine = np.abs(CUBE @ between).max()
    return float(np.degrees(2 * np.arccos(min(1.0, cosine))))


def orientations(spacing_deg: float) -> Array:
    """Return matrices spread evenly over all distinct orientations of a cube, at about this distance.

    A super-Fibonacci spiral over all rotations (Alexa, CVPR 2022), of which those are kept that are nearer to no
    rotation than their 23 equivalents.
    """
    count = int(8 * np.pi**2 / np.radians(spacing_deg) ** 3)
    index = np.arange(count) + 0.5
    inner, outer = np.sqrt(index / count), np.sqrt(1 - index / count)
    first, second = 2 * np.pi * index / np.sqrt(2), 2 * np.pi * index / 1.533751168755204288118041
    turns = (inner * np.sin(first), inner * np.cos(first), outer * np.sin(second), outer * np.cos(second))
    quaternions = np.stack(turns, axis=1)
    nearest = np.abs(quaternions @ CUBE.T).argmax(axis=1)
    unity = np.abs(CUBE[:, 3]).argmax()
    matrices: Array = Rotation.from_quat(quaternions[nearest == unity]).as_matrix()
    return matrices


def inverse_pole_colour(orientation: Array) -> Array:
    """Return red, green, blue within 0..1 for the crystal direction along the sample's normal; 001 red, 101 green."""
    low, middle, high = np.sort(np.abs(orientation[:, 2]))
    colour = np.array([high - middle, (middle - low) * np.sqrt(2), low * np.sqrt(3)])
    shown: Array = np.sqrt(colour / colour.max())
    return shown
