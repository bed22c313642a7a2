"""Electron backscatter patterns and a simulated master pattern, as kikuchipy and EMsoft store them in HDF5."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from crucible_lineage.demo.spectra import Array
from crystal import from_bunge

__all__ = ["Patterns", "read_background", "read_master", "read_patterns", "stored_orientations", "write_patterns"]

SCAN = "Scan 1/EBSD"
CENTRE = ("pcx", "pcy", "pcz")


@dataclass(frozen=True, eq=False)
class Patterns:
    """Square patterns of a scan, in the order of measurement.

    `centre` is the pattern centre of each: the foot of the perpendicular from the sample to the detector, from the left
    and from the top, and its length, as parts of the pattern's width (Bruker's convention). `grid` is rows and columns.
    """

    images: Array
    centre: Array
    tilt_deg: float
    grid: tuple[int, int]


def read_patterns(path: Path) -> Patterns:
    """Read the patterns in a file of kikuchipy. Raises ValueError for other files, and if they are not square."""
    with h5py.File(path) as file:
        try:
            scan = file[SCAN]
            images = scan["Data/patterns"][()].astype(float)
            header = scan["Header"]
            centre = np.stack([header[name][()].ravel() for name in CENTRE], axis=1)
            grid = (int(header["n_rows"][0]), int(header["n_columns"][0]))
            tilt = float(header["sample_tilt"][0])
        except KeyError as error:
            raise ValueError(
                f"{path.name}: not a file of backscatter patterns as kikuchipy writes it ({error})"
            ) from error
    if images.ndim != 3 or images.shape[1] != images.shape[2] or len(centre) != len(images):
        raise ValueError(f"{path.name}: expected square patterns and a pattern centre for each, not {images.shape}")
    return Patterns(images, centre, tilt, grid)


def write_patterns(path: Path, patterns: Patterns) -> None:
    """Write a file for `read_patterns`. Equal patterns give equal bytes."""
    with h5py.File(path, "w") as file:
        scan = file.create_group(SCAN)
        scan.create_dataset("Data/patterns", data=patterns.images.astype(np.float32), compression="gzip")
        for name, values in zip(CENTRE, patterns.centre.T, strict=True):
            scan[f"Header/{name}"] = values.reshape(patterns.grid)
        scan["Header/n_rows"], scan["Header/n_columns"] = [patterns.grid[0]], [patterns.grid[1]]
        scan["Header/sample_tilt"] = [patterns.tilt_deg]


def stored_orientations(path: Path) -> list[Array]:
    """Read the orientations in a file of patterns, as matrices from sample to crystal, in the order of the patterns."""
    with h5py.File(path) as file:
        data = file[f"{SCAN}/CrystalMap/crystal_map/data"]
        angles = zip(*(data[name][()] for name in ("phi1", "Phi", "phi2")), strict=True)
        return [from_bunge(*map(float, triple)) for triple in angles]


def read_background(path: Path) -> Array:
    """Return the grey values of a picture."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), dtype=float)


def read_master(path: Path) -> Array:
    """Read the upper hemisphere of a master pattern of EMsoft: stereographic, at the highest energy."""
    with h5py.File(path) as file:
        try:
            master = file["EMData/EBSDmaster/masterSPNH"][-1].astype(float)
            group = int(file["CrystalData/SpaceGroupNumber"][0])
        except KeyError as error:
            raise ValueError(f"{path.name}: not a master pattern as EMsoft writes it ({error})") from error
    if not 221 <= group <= 230:
        raise ValueError(
            f"{path.name}: space group {group} is not one of the cubic ones with full symmetry (221 to 230)"
        )
    return np.asarray(master, dtype=float)
