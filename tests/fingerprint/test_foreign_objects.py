"""Objects of foreign packages that only look like arrays, and quantities with units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crucible_lineage.fingerprint.objects import NotPlainError, constant_text
from crucible_lineage.fingerprint.source import is_first_party
from crucible_lineage.fingerprint.values import plain_value, quantity_of


class Column(np.ndarray):
    """As a table of astropy has them: the class has `dtype` and `tobytes`, the instance cannot be written."""

    def tobytes(self, *_: object) -> bytes:  # type: ignore[override]
        raise NotImplementedError("cannot write Quantities to bytes")


class Length:
    """As a quantity of astropy: a value and a unit."""

    def __init__(self, value: object, unit: str) -> None:
        self._parts = value, unit

    @property
    def value(self) -> object:
        return self._parts[0]

    @property
    def unit(self) -> str:
        return self._parts[1]


class Measured:
    """As a number of uncertainties."""

    nominal_value, std_dev = 3.0, 0.2


class Mock:
    """As a stand-in of pydantic: it raises an error of its own for whatever it is asked for."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(f"cannot be used for {name}")


def test_what_only_looks_like_an_array_is_no_plain_value() -> None:
    for odd in (np.ndarray, np.float64, Column, np.zeros(2).view(Column), Mock()):
        with pytest.raises(NotPlainError):
            constant_text(odd)


def test_a_quantity_counts_with_its_unit() -> None:
    assert constant_text(Length(532.0, "nm")) == "quantity:float:532.0,str:'nm',NoneType:None"
    assert constant_text(Length(532.0, "um")) != constant_text(Length(532.0, "nm"))
    assert constant_text(Length(np.arange(2), "nm")) != constant_text(Length(np.arange(3), "nm"))


def test_a_returned_quantity_is_value_unit_and_uncertainty() -> None:
    assert plain_value({"at": Length(532.0, "nm")}, "result") == {"at": {"value": 532.0, "unit": "nm"}}
    assert plain_value(Length(np.arange(3), "nm"), "result") == {"value": [0, 1, 2], "unit": "nm"}
    assert plain_value(Measured(), "result") == {"value": 3.0, "unit": "", "uncertainty": 0.2}


def test_quantities_of_pint() -> None:
    pint = pytest.importorskip("pint")
    unit = pint.UnitRegistry()
    assert quantity_of(unit.Quantity(2.5, "mW")) == {"value": 2.5, "unit": "milliwatt"}
    assert plain_value(unit.Quantity(np.array([1.0, 2.0]), "nm"), "x") == {"value": [1.0, 2.0], "unit": "nanometer"}


def test_a_package_that_pip_put_into_a_folder_of_the_path_is_no_code_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("installedpackage", "ownpackage"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    info = tmp_path / "installedpackage-1.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("installedpackage/__init__.py,sha256=x,0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_first_party("installedpackage", "steps")
    assert is_first_party("ownpackage", "steps")
