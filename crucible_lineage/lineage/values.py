"""Values of results as people read them: short, and with the unit where the key or the value carries one."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crucible_lineage.lineage.labels import plain

__all__ = ["csv_text", "number_text", "told_value", "unit_of", "value_text"]

MOST = 200  # characters
DIGITS = 7  # of a number; all of them are in the JSON

# How keys end in a unit (`laser_nm`, `rms_cm1`), and how that is written. Single letters only where they are clear.
UNITS = {
    **{unit: unit for unit in ("pm", "nm", "mm", "cm", "km", "fs", "ps", "ns", "ms", "s", "min", "h", "Hz", "kHz")},
    **{unit: unit for unit in ("MHz", "GHz", "THz", "mV", "kV", "V", "mA", "nA", "pA", "A", "uW", "mW", "W", "kW")},
    **{unit: unit for unit in ("eV", "meV", "keV", "MeV", "K", "mK", "Pa", "kPa", "MPa", "GPa", "mbar", "bar", "mT")},
    **{unit: unit for unit in ("mg", "kg", "mol", "mM", "rad", "mrad", "dB", "px", "counts", "ppm", "GB", "MB", "kB")},
    "um": "µm", "uA": "µA", "us": "µs", "uV": "µV", "ug": "µg", "ul": "µl", "ml": "ml", "nW": "nW",
    "A1": "Å⁻¹", "ang": "Å", "angstrom": "Å", "angstroms": "Å", "cm1": "cm⁻¹", "nm1": "nm⁻¹", "degC": "°C",
    "celsius": "°C", "deg": "°", "degrees": "°", "percent": "%", "pct": "%", "seconds": "s", "bytes": "bytes",
    "kelvin": "K", "volts": "V", "hz": "Hz", "ev": "eV", "kev": "keV", "mev": "meV", "mw": "mW", "kv": "kV",
}  # fmt: skip


FORMULAS = tuple("=+-@＝＋－＠")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV with a line of names; what is no plain value is JSON.

    A text that a spreadsheet would run as a formula is led by an apostrophe; one with any line break is quoted.
    """
    return "".join(map(_csv_line, (columns, *([_csv_cell(value) for value in row] for row in rows))))


def _csv_line(cells: Sequence[object]) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="\r\n").writerow(cells)  # with both, a carriage return in a cell is quoted
    return target.getvalue().removesuffix("\r\n") + "\n"


def _csv_cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.lstrip().startswith(FORMULAS) or value[:1] in ("\t", "\r") else value
    if isinstance(value, bool | list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def unit_of(key: str) -> str:
    """The unit that a key ends in, as `laser_nm` does; empty if it ends in none."""
    head, _, tail = key.rpartition("_")
    return UNITS.get(tail, "") if head else ""


def told_value(key: str, value: object, most: int = MOST) -> str:
    """A value with its unit, on one line: `632.961 nm`. A mapping of `value` and `unit` is one number, too."""
    if isinstance(value, Mapping) and (number := _measured(value)) is not None:
        unit = value.get("unit", value.get("units"))
        return plain(f"{number_text(number)} {unit}" if unit else number_text(number))
    said = value_text(value, most)
    unit = unit_of(key) if isinstance(value, int | float) and not isinstance(value, bool) else ""
    return f"{said} {unit}" if unit else said


def value_text(value: object, most: int = MOST) -> str:
    """A value on one line, shortened where it is long; numbers with seven digits."""
    if isinstance(value, float):
        return number_text(value)
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return plain(said if len(said) <= most else f"{said[:most]}… ({len(said)} characters)")


def number_text(value: float) -> str:
    """A number with seven digits at the most."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    whole = repr(value)
    return whole if len(whole) <= DIGITS + 1 else f"{value:.{DIGITS}g}"


def _measured(value: Mapping[str, Any]) -> float | None:
    number = value.get("value")
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return number if is_number and value.keys() <= {"value", "unit", "units"} else None
