"""Quantities of foreign libraries (astropy, pint, uncertainties) as a number or array, its unit and its uncertainty.

They are known by what they offer, so that none of these libraries is imported, or needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Quantity", "quantity_of"]

# What a class offers -> where value, uncertainty and unit stand.
_FORMS = (
    ("nominal_value", "std_dev", None),  # uncertainties: no unit
    ("magnitude", None, "units"),  # pint
    ("value", None, "unit"),  # astropy
)


@dataclass(frozen=True)
class Quantity:
    """A value with what gives it its meaning; `unit` is empty for pure numbers."""

    value: Any
    unit: str = ""
    uncertainty: Any = None

    def to_json(self) -> dict[str, Any]:
        """The form in which metadata and parameters hold it."""
        entry = {"value": self.value, "unit": self.unit}
        return entry if self.uncertainty is None else {**entry, "uncertainty": self.uncertainty}


def quantity_of(value: Any) -> Quantity | None:
    """The parts of a quantity; None for anything else."""
    kind = type(value)
    if isinstance(value, type) or kind.__module__.partition(".")[0] in ("builtins", "numpy", "pandas"):
        return None
    for name, uncertainty, unit in _FORMS:
        if all(hasattr(kind, part) for part in (name, uncertainty, unit) if part):
            return _parts(getattr(value, name), getattr(value, uncertainty) if uncertainty else None,
                          getattr(value, unit) if unit else None)  # fmt: skip
    return None


def _parts(value: Any, uncertainty: Any, unit: Any) -> Quantity | None:
    if unit is None and uncertainty is None:
        return None
    inner = quantity_of(value)  # a measurement of pint holds a number with its uncertainty
    if inner is not None:
        value, uncertainty = inner.value, inner.uncertainty
    if not (isinstance(value, int | float | complex) or hasattr(value, "dtype")):
        return None
    return Quantity(value, "" if unit is None else str(unit), uncertainty)
