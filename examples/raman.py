"""Raman on many instruments: an axis for each from neon and silicon, its polystyrene bands, and one table."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crucible_lineage.demo.raman import POLYSTYRENE_CM1, SILICON_CM1
from crucible_lineage.demo.spectra import Array, Spectrum, decimals, fit_line, write_csv
from crucible_lineage.step import step
from instruments import laser_of, position, read_measured
from neon import NeonLine, WavelengthScale, neon_lines, nominal_nm, nominal_shift, scale_from
from raman_figures import Agreement, draw_calibrated, draw_table

__all__ = ["calibrate", "compare_instruments", "find_bands", "wavenumber_axis"]

NOMINAL_LASERS_NM = (532.0, 632.8, 785.0)  # of instruments whose files do not name it
SILICON_WINDOW_CM1 = 20.0
SPECTRUM_COLUMNS = ("nominal_cm1", "raman_shift_cm1", "intensity")
BAND_COLUMNS = ("reference_cm1", "nominal_cm1", "calibrated_cm1")
SAME_CM1 = 0.05  # smaller changes of the mean error are not significant


@step(measurement="Raman Spectroscopy", data_type="wavenumber axis")
def wavenumber_axis(neon: list[Path], silicon: Path, *, degree: int = 3, out: Path) -> dict[str, Any]:
    """Determine the true axis, in `axis.json`: wavelengths from neon lines, the laser's from silicon at 520.45 cm-1.

    `neon` are exposures of the same lamp: long ones show weak lines, short ones the strong. Which of the usual lasers a
    file without header belongs to is told by the lines: with the right one most of them fit.
    """
    if not 1 <= degree <= 6:
        raise ValueError(f"degree {degree}: the axis is a polynomial of degree 1 to 6")
    wafer = read_measured(silicon)
    lamp, (lines, scale) = _identified([read_measured(path) for path in neon], degree)
    laser = laser_of(wafer, lamp)
    found = fit_line(wafer, SILICON_CM1, SILICON_WINDOW_CM1)
    if found is None:
        raise ValueError(f"{silicon.name}: no silicon band within {SILICON_WINDOW_CM1:g} cm-1 of {SILICON_CM1} cm-1")
    true_laser = round(1e7 / (1e7 / float(scale.vacuum_nm(nominal_nm(found, laser))) + SILICON_CM1), 4)
    residuals = scale.residuals_cm1(lines)
    places = [nominal_shift(line.nominal_nm, laser) for line in lines]
    summary = {
        "laser_nm": true_laser,
        "nominal_laser_nm": laser,
        "degree": degree,
        "lines": len(lines),
        "rms_cm1": _rounded_rms(residuals),
        "held_out_rms_cm1": _rounded_rms(_held_out(lines, degree, scale)),
        "silicon_nominal_cm1": round(found, 3),
        "range_cm1": [round(places[0], 2), round(places[-1], 2)],
    }
    rows = [
        {
            "vacuum_nm": round(line.vacuum_nm, 4),
            "nominal_cm1": round(place, 3),
            "residual_cm1": round(float(off), 3) + 0.0,
        }
        for line, place, off in zip(lines, places, residuals, strict=True)
    ]
    record = {**summary, "coefficients_nm": scale.coefficients_nm, "domain_nm": scale.domain_nm, "neon": rows}
    (out / "axis.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
    return summary


@step(measurement="Raman Spectroscopy", data_type="calibrated spectrum", thumbnail="*.png")
def calibrate(spectrum: Path, axis: Path, *, out: Path) -> dict[str, Any]:
    """Put the spectrum on the nominal and the true axis, in `NAME.calibrated.csv`, with a picture of the change."""
    measured = read_measured(spectrum)
    record, scale = _read_axis(axis)
    laser = laser_of(measured, record["nominal_laser_nm"])
    shift = 1e7 / record["laser_nm"] - 1e7 / scale.vacuum_nm(nominal_nm(measured.shift_cm1, laser))
    columns = zip(measured.shift_cm1, shift, measured.intensity, strict=True)
    rows = ((decimals(nominal, 3), decimals(true, 3), decimals(counts, 1)) for nominal, true, counts in columns)
    write_csv(out / f"{spectrum.stem}.calibrated.csv", SPECTRUM_COLUMNS, rows)
    draw_calibrated(out / "calibrated.png", measured, shift, record, POLYSTYRENE_CM1)
    inside = (measured.shift_cm1 > POLYSTYRENE_CM1[0]) & (measured.shift_cm1 < POLYSTYRENE_CM1[-1])
    correction = (shift - measured.shift_cm1)[inside]
    return {
        "laser_nm": record["laser_nm"],
        "points": len(shift),
        "smallest_correction_cm1": round(float(correction.min()), 3),
        "largest_correction_cm1": round(float(correction.max()), 3),
    }


@step(measurement="Raman Spectroscopy", data_type="band positions")
def find_bands(spectrum: Path, *, tolerance_cm1: float = 8.0, out: Path) -> dict[str, Any]:
    """Find the polystyrene bands on the nominal and the true axis, in `NAME.bands.csv`, beside those of ASTM E1840.

    A band that the instrument does not resolve on one of the axes is left out. ValueError if fewer than four are left.
    """
    nominal, true, counts = np.loadtxt(spectrum, delimiter=",", skiprows=1, unpack=True)
    bands = []
    for reference in POLYSTYRENE_CM1:
        places = [position(spectrum, axis, counts, reference, tolerance_cm1) for axis in (nominal, true)]
        found = [place for place in places if place is not None]
        if len(found) == len(places):
            bands.append((reference, *found))
    if len(bands) < 4:
        message = f"{len(bands)} of {len(POLYSTYRENE_CM1)} polystyrene bands found; is this polystyrene?"
        raise ValueError(f"{spectrum.name}: {message}")
    name = spectrum.name.removesuffix(".calibrated.csv")
    rows = ((decimals(band[0], 1), *(decimals(place, 3) for place in band[1:])) for band in bands)
    write_csv(out / f"{name}.bands.csv", BAND_COLUMNS, rows)
    return {"reference": "ASTM E1840 polystyrene", "bands": len(bands), **_errors(np.array(bands))}


@step(measurement="Raman Spectroscopy", data_type="comparison of instruments", thumbnail="*.png")
def compare_instruments(bands: list[Path], *, out: Path) -> dict[str, Any]:
    """Tabulate all instruments in `instruments.csv`, with a picture of the errors of the bands."""
    tables = {path.name.removesuffix(".bands.csv"): _read_bands(path) for path in sorted(bands, key=lambda p: p.name)}
    rows = []
    for name, table in tables.items():
        errors = _errors(table)
        before, after = errors["nominal_mean_absolute_error_cm1"], errors["mean_absolute_error_cm1"]
        verdict = "same" if abs(after - before) < SAME_CM1 else "better" if after < before else "worse"
        rows.append(Agreement(name, len(table), before, after, verdict))
    write_csv(
        out / "instruments.csv",
        ("spectrum", "bands", "nominal_mean_absolute_error_cm1", "calibrated_mean_absolute_error_cm1", "calibration"),
        (
            (row.name, str(row.bands), decimals(row.nominal, 3), decimals(row.calibrated, 3), row.verdict)
            for row in rows
        ),
    )
    draw_table(out / "instruments.png", rows, tables)
    counted = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("better", "worse", "same")}
    return {"instruments": len(rows), **counted, **_errors(np.concatenate(list(tables.values())))}


def _identified(lamps: Sequence[Spectrum], degree: int) -> tuple[float, tuple[list[NeonLine], WavelengthScale]]:
    """Return the nominal laser with which most neon lines are found, these lines, and the scale through them."""
    told = all(laser_of(lamp, 0.0) for lamp in lamps)  # then the nominal laser does not matter
    results, faults = {}, []
    for laser in NOMINAL_LASERS_NM[:1] if told else NOMINAL_LASERS_NM:
        try:
            results[laser] = neon_lines([(lamp, laser_of(lamp, laser)) for lamp in lamps], degree)
        except ValueError as error:
            faults.append(error)
    if not results:
        raise faults[0]
    best = max(results, key=lambda laser: len(results[laser][0]))
    return best, results[best]


def _held_out(lines: Sequence[NeonLine], degree: int, scale: WavelengthScale) -> Array:
    """Return the difference of each line from the scale through all others."""
    misses = []
    for index, line in enumerate(lines):
        others = scale_from([*lines[:index], *lines[index + 1 :]], degree, scale.domain_nm)
        misses.append(float(others.residuals_cm1([line])[0]))
    return np.array(misses)


def _read_axis(path: Path) -> tuple[dict[str, Any], WavelengthScale]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        scale = WavelengthScale(tuple(record["coefficients_nm"]), tuple(record["domain_nm"]))
        _ = record["laser_nm"], record["nominal_laser_nm"], record["silicon_nominal_cm1"], record["neon"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: not an axis as wavenumber_axis writes it ({error!r})") from error
    return record, scale


def _read_bands(path: Path) -> Array:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != BAND_COLUMNS:
        raise ValueError(f"{path.name}: not a table as find_bands writes it")
    return np.array(rows[1:], dtype=float)


def _errors(bands: Array) -> dict[str, float]:
    """Return the mean absolute difference from the reference on each axis; columns as in find_bands."""
    nominal, calibrated = (float(np.mean(np.abs(bands[:, column] - bands[:, 0]))) for column in (1, 2))
    return {
        "nominal_mean_absolute_error_cm1": round(nominal, 3),
        "mean_absolute_error_cm1": round(calibrated, 3),
    }


def _rounded_rms(values: Array) -> float:
    return round(math.sqrt(float(np.mean(values**2))), 3)
