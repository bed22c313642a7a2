"""Over a hundred edits of a step and what it reaches: what changes behaviour changes the fingerprint, nothing else."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NAMES = "    names = {key: [item + key for item in (key, label)] for key in LEVELS}\n"
PARSE = "    @staticmethod\n    def parse(text):\n        return float(text)\n"
UNIT = "    @classmethod\n    def unit(cls):\n        return cls(1)\n"

REAL = {
    "number in the step": ("steps.py", "if value > 0.5]", "if value > 0.6]"),
    "operator in the step": ("steps.py", "total += half(total) + cubed", "total += half(total) - cubed"),
    "order of statements": (
        "steps.py",
        NAMES + "    message = f",
        "    message = f'{1}'\n" + NAMES + "    message = f",
    ),
    "format in an f-string": ("steps.py", "{total:.3f}", "{total:.4f}"),
    "conversion in an f-string": ("steps.py", "{len(names)!r}", "{len(names)!s}"),
    "text in an f-string": ("steps.py", "{method([1.0])} {fetch}", "{method([1.0])}: {fetch}"),
    "list comprehension": (
        "steps.py",
        "[item + key for item in (key, label)]",
        "[item + key for item in (label, key)]",
    ),
    "dict comprehension": ("steps.py", "{key: [item", "{key + 'x': [item"),
    "nested function in the step": ("steps.py", "return item + 7", "return item + 8"),
    "name of a file": ("steps.py", '"bands.txt"', '"band.txt"'),
    "returned key": ("steps.py", 'return {"total": total}', 'return {"sum": total}'),
    "module constant": ("steps.py", "SCALE = 2.5", "SCALE = 2.6"),
    "type of a constant": ("steps.py", "SCALE = 2.5", "SCALE = '2.5'"),
    "int for float": ("filters.py", "WINDOW = 11", "WINDOW = 11.0"),
    "bool for int": ("calibration.py", "limit = 100", "limit = True"),
    "constant replaced by an expression of another value": ("steps.py", "SCALE = 2.5", "SCALE = 5 / 3"),
    "nested constant": ("steps.py", '"end": 0.9', '"end": 0.95'),
    "key of a nested constant": ("steps.py", '"end": 0.9', '"stop": 0.9'),
    "order of a constant's keys": (
        "steps.py",
        '{"low": 0.1, "high": {"start": 0.8, "end": 0.9}}',
        '{"high": {"start": 0.8, "end": 0.9}, "low": 0.1}',
    ),
    "list for a tuple": ("calibration.py", '__slots__ = ("amount",)', '__slots__ = ["amount"]'),
    "array constant": ("steps.py", "[1.0, 2.0, 1.0]", "[1.0, 3.0, 1.0]"),
    "type of an array": ("steps.py", "np.array([1.0, 2.0, 1.0])", "np.array([1.0, 2.0, 1.0], dtype='float32')"),
    "shape of an array": ("steps.py", "np.array([1.0, 2.0, 1.0])", "np.array([[1.0, 2.0, 1.0]])"),
    "pattern": ("steps.py", r're.compile(r"\d+")', r're.compile(r"\w+")'),
    "flag of a pattern": ("steps.py", r're.compile(r"\d+")', r're.compile(r"\d+", re.ASCII)'),
    "constant of another module": ("filters.py", "WINDOW = 11", "WINDOW = 12"),
    "constant two modules away": ("late.py", "LATE = 9", "LATE = 10"),
    "private constant of a helper": ("filters.py", "_floor = 0.25", "_floor = 0.3"),
    "dict built by a call": ("calibration.py", "argon=0.75", "argon=0.8"),
    "initial value of a counter": ("steps.py", "_calls = 0", "_calls = 1"),
    "initial contents of a memory": ("steps.py", "_cache: dict[str, float] = {}", "_cache = {'bands': 1.0}"),
    "setting made while importing": ("registry.py", 'configure("depth", 12)', 'configure("depth", 13)'),
    "imported helper": ("filters.py", "distance(value, floor) + deepest", "distance(value, floor) - deepest"),
    "helper of a helper": (
        "filters.py",
        "return nested.median(value) - _floor",
        "return nested.median(value) + _floor",
    ),
    "helper through two modules": ("nested.py", "return value / 2", "return value / 3"),
    "helper from a star import": ("nested.py", "return value + 8", "return value + 9"),
    "helper imported inside the step": ("late.py", "return value + LATE", "return value - LATE"),
    "name imported inside the step": ("steps.py", "import late_helper\n", "import other_helper as late_helper\n"),
    "helper's default": ("filters.py", "exponent=2", "exponent=3"),
    "value of a helper's default": ("steps.py", "bias=0.5", "bias=0.6"),
    "lambda as a default": ("steps.py", "item / 3", "item / 4"),
    "lambda": ("steps.py", "lambda value: value * 2", "lambda value: value * 3"),
    "first of two lambdas on a line": ("steps.py", "(lambda value: value + 1)", "(lambda value: value + 9)"),
    "second of two lambdas on a line": ("steps.py", "(lambda value: value + 2)", "(lambda value: value + 9)"),
    "two lambdas swapped": ("steps.py", "first, second = (", "second, first = ("),
    "value in a closure": ("steps.py", "cubed = make_filter(3)", "cubed = make_filter(4)"),
    "code of a closure": ("steps.py", "return value**order", "return order**value"),
    "argument of a partial": ("steps.py", "exponent=0.5", "exponent=0.6"),
    "function of a partial": ("steps.py", "partial(filters.power, exponent=0.5)", "partial(pow, exp=0.5)"),
    "decorator": ("steps.py", "return function(*args) + 0.0", "return function(*args) + 1.0"),
    "decorated function": ("steps.py", "return value + 1.0", "return value + 1.5"),
    "decorator removed": ("steps.py", "@timed\n", ""),
    "cached function": ("steps.py", "return value * 1.1", "return value * 1.2"),
    "argument of a library's decorator": ("steps.py", "maxsize=8", "maxsize=9"),
    "generator": ("steps.py", "yield value * 2", "yield value * 3"),
    "generator made a list": ("steps.py", "yield value * 2", "return [value * 2]"),
    "coroutine": ("steps.py", "return value + 4", "return value + 5.5"),
    "coroutine made a function": ("steps.py", "async def fetch", "def fetch"),
    "function in a branch": ("steps.py", "return value + 5\n", "return value + 5.5\n"),
    "condition of a branch": ("steps.py", "if math.pi > 3:", "if math.pi > 4:"),
    "method passed as a default": ("filters.py", "sum(values) / len(values)", "sum(values) / 2"),
    "function in a registry": ("registry.py", "return value + 10", "return value + 10.5"),
    "other function in the registry": ("registry.py", "return value + 11", "return value + 11.5"),
    "name in a registry": ("registry.py", '@register("lines")', '@register("line")'),
    "registration removed": ("registry.py", '@register("lines")\n', ""),
    "registering decorator": ("registry.py", "FITS[name] = function\n", "FITS[name] = (function, 1)[0]\n"),
    "imported function of a library": ("steps.py", "import savgol_filter as smooth", "import medfilt as smooth"),
    "imported function of the standard library": ("filters.py", "import hypot as distance", "import fmod as distance"),
    "library behind a name": ("steps.py", "import numpy as np", "import numpy.ma as np"),
    "attribute of a library": ("steps.py", "np.sum(KERNEL)", "np.prod(KERNEL)"),
    "attribute of the standard library": ("steps.py", "math.sqrt(4)", "math.exp(4)"),
    "attribute of an instance": ("steps.py", "Calibration(gain=1.5)", "Calibration(gain=1.6)"),
    "initial memory of an instance": ("steps.py", "Calibration(gain=1.5)", "Calibration(gain=1.5 * 1)"),
    "method": ("calibration.py", "* self.gain + self.offset", "* self.gain - self.offset"),
    "constructor": ("calibration.py", "self.gain = gain", "self.gain = gain + 1"),
    "class attribute": ("calibration.py", "limit = 100", "limit = 101"),
    "cached property": ("calibration.py", "return 0.0625", "return 0.0626"),
    "property": ("calibration.py", "return self.gain * 2", "return self.gain * 3"),
    "static method": ("calibration.py", "return float(text)", "return int(text)"),
    "class method": ("calibration.py", "return cls(1)", "return cls(2)"),
    "static method made a class method": (
        "calibration.py",
        "@staticmethod\n    def parse(",
        "@classmethod\n    def parse(",
    ),
    "attribute of a base class": ("calibration.py", "bias = 0.125", "bias = 0.25"),
    "method of a base class": ("calibration.py", "return value - self.bias", "return value + self.bias"),
    "base class": ("calibration.py", "class Calibration(Corrected):", "class Calibration(Corrected, dict):"),
    "method that a property calls": ("calibration.py", "return self.amount + 1", "return self.amount + 2"),
    "class attribute set from outside": ("calibration.py", "Device.factor = 4", "Device.factor = 5"),
    "instance attribute set from outside": ("calibration.py", "tuned.strength = 0.5", "tuned.strength = 0.75"),
    "call method of an instance": ("calibration.py", "return value * self.strength", "return value + self.strength"),
    "default of a dataclass field": ("spectra.py", "width: float = 2.0", "width: float = 2.5"),
    "factory of a dataclass field": ("spectra.py", "default_factory=list", "default_factory=dict"),
    "order of dataclass fields": (
        "spectra.py",
        "    width: float = 2.0\n    tags: list = field(default_factory=list)\n",
        "    tags: list = field(default_factory=list)\n    width: float = 2.0\n",
    ),
    "new dataclass field": ("spectra.py", "    width: float = 2.0\n", "    width: float = 2.0\n    depth: int = 0\n"),
    "argument of dataclass": ("spectra.py", "frozen=True", "order=True"),
    "property of a dataclass": ("spectra.py", "self.height * self.width", "self.height + self.width"),
    "default of a model": ("spectra.py", "high: float = 5.0", "high: float = 6.0"),
    "type of a model's field": ("spectra.py", "    low: float\n", "    low: int\n"),
    "method of a model": ("spectra.py", "self.high - self.low", "self.low - self.high"),
    "value of an enum": ("spectra.py", "RAMAN = 1", "RAMAN = 3"),
    "new member of an enum": ("spectra.py", 'CM1 = "1/cm"', 'CM1 = "1/cm"\n    EV = "eV"'),
    "order of an enum": ("spectra.py", '    NM = "nm"\n    CM1 = "1/cm"\n', '    CM1 = "1/cm"\n    NM = "nm"\n'),
    "default in a named tuple": ("spectra.py", "value: float = 1.5", "value: float = 2.5"),
    "dispatched function": ("spectra.py", "return value + 13", "return value + 14"),
    "type that is dispatched on": ("spectra.py", "def _(value: int):", "def _(value: bytes):"),
    "fallback of a dispatch": ("spectra.py", "return Row(", "return -Row("),
    "shape of an input": ("steps.py", "    neon: Path,\n", "    neon: list[Path],\n"),
    "name of an input": ("steps.py", "    neon: Path,\n", "    argon: Path,\n"),
}

COSMETIC = {
    "comment": ("steps.py", "# a comment in the step", "# another comment\n    # of two lines"),
    "docstring of the step": ("steps.py", '"""Everything at once."""', '"""All in one.\n\n    And more.\n    """'),
    "docstring removed": ("steps.py", '    """Everything at once."""\n', ""),
    "docstring of a helper": ("filters.py", '"""The value above its baseline."""', '"""What is left."""'),
    "docstring of a class": ("calibration.py", '"""A gain and a memory."""', '"""A gain."""'),
    "docstring added to a helper": (
        "filters.py",
        "    return value**exponent",
        '    """Power."""\n    return value**exponent',
    ),
    "docstring of a module": ("filters.py", '"""Helpers in another module of the package."""', '"""Helpers."""'),
    "type hint in the step": ("steps.py", "total: float = sum", "total = sum"),
    "type hint of a parameter": ("steps.py", "degree: int", "degree: float"),
    "type hint of the result": ("steps.py", ") -> dict:", ") -> dict[str, float]:"),
    "type hint of a helper": (
        "filters.py",
        "def power(value, exponent=2):",
        "def power(value: float, exponent: int = 2) -> float:",
    ),
    "type hint of a global": ("steps.py", "SCALE = 2.5", "SCALE: float = 2.5"),
    "type hint of a dataclass field": ("spectra.py", "    height: float\n", "    height: int\n"),
    "type hint declared alone": (
        "steps.py",
        "    def summarize(item):\n",
        "    summarize: object\n\n    def summarize(item):\n",
    ),
    "pass": ("calibration.py", "class Device:\n    pass", 'class Device:\n    """A device."""'),
    "blank lines": ("steps.py", "    values = [double", "\n\n    values = [double"),
    "blanks": ("steps.py", 'return {"total": total}', 'return { "total" :total }'),
    "quotes": ("steps.py", 'LEVELS["high"]["start"]', "LEVELS['high']['start']"),
    "parentheses": ("steps.py", "return value + 4", "return (value + 4)"),
    "line break": ("steps.py", "return value + 4", "return (\n        value\n        + 4\n    )"),
    "trailing comma": ("steps.py", "for item in (key, label)]", "for item in (key, label,)]"),
    "spelling of a number": ("steps.py", "SCALE = 2.5", "SCALE = 2.50"),
    "spelling of an integer": ("calibration.py", "limit = 100", "limit = 1_00"),
    "expression of the same constant": ("steps.py", "SCALE = 2.5", "SCALE = 5 / 2"),
    "name of an unrelated function": ("steps.py", "def also_unrelated", "def also_not_related"),
    "code of an unrelated function": ("steps.py", "return max(values)", "return min(values)"),
    "order of unrelated functions": (
        "steps.py",
        "def unrelated(values):\n    return sorted(values)\n\n\ndef also_unrelated(values):\n    return max(values)\n",
        "def also_unrelated(values):\n    return max(values)\n\n\ndef unrelated(values):\n    return sorted(values)\n",
    ),
    "unused function of a helper's module": (
        "filters.py",
        "def unused(value):\n    return value",
        "def unused(value):\n    return -value",
    ),
    "new unrelated constant": ("steps.py", "SCALE = 2.5\n", "SCALE = 2.5\nUNRELATED = 1\n"),
    "new unrelated import": ("steps.py", "import math\n", "import json\nimport math\n"),
    "order of methods": ("calibration.py", PARSE + "\n" + UNIT, UNIT + "\n" + PARSE),
    "default of the step's parameter": ("steps.py", "degree: int = 3", "degree: int = 4"),
    "default of another of the step's parameters": ("steps.py", 'label: str = "bands"', 'label: str = "lines"'),
    "measurement of the result": ("steps.py", 'data_type="bands"', 'data_type="band positions"'),
    "keywords of the result": ("steps.py", 'keywords=["table"]', 'keywords=["table", "bands"]'),
    "import of the step's decorator": (
        "steps.py",
        "from crucible_lineage import step\n",
        "from crucible_lineage.step import step\n",
    ),
    "prefix of a string": ("steps.py", '.findall("1 2")', '.findall(u"1 2")'),
    "string in two parts": ("steps.py", '"bands.txt"', '"bands" ".txt"'),
    "named tuple's hint": (
        "spectra.py",
        "class Row(NamedTuple):\n    name: str",
        "class Row(NamedTuple):\n    name: object",
    ),
    "typed dict's hint": (
        "spectra.py",
        "class Entry(TypedDict):\n    name: str",
        "class Entry(TypedDict):\n    name: object",
    ),
}


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """What was found out once for all tests."""
    return {}


@pytest.fixture
def original(new_laboratory: Callable[[], Any], known: dict[str, str]) -> str:
    """The digest of the laboratory as it is."""
    if not known:
        known["digest"] = new_laboratory().fingerprint().digest
    return known["digest"]


@pytest.mark.parametrize("edit", REAL.values(), ids=REAL)
def test_an_edit_of_what_the_step_does_changes_its_fingerprint(
    laboratory: Any, original: str, edit: tuple[str, str, str]
) -> None:
    file, old, new = edit
    if "other_helper" in new:
        laboratory.edit("late.py", "LATE = 9", "LATE = 9\n\n\ndef other_helper(value):\n    return value\n")
    laboratory.edit(file, old, new)

    assert laboratory.fingerprint().digest != original


@pytest.mark.parametrize("edit", COSMETIC.values(), ids=COSMETIC)
def test_an_edit_of_looks_leaves_the_fingerprint_alone(
    laboratory: Any, original: str, edit: tuple[str, str, str]
) -> None:
    laboratory.edit(*edit)

    assert laboratory.fingerprint().digest == original


@pytest.mark.parametrize("file", ["steps.py", "filters.py", "registry.py", "calibration.py", "spectra.py"])
def test_writing_a_module_anew_from_its_tree_leaves_the_fingerprint_alone(
    laboratory: Any, original: str, file: str
) -> None:
    laboratory.rewrite(file, lambda text: ast.unparse(ast.parse(text)))

    assert laboratory.fingerprint().digest == original


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_line_endings_leave_the_fingerprint_alone(laboratory: Any, original: str, ending: str) -> None:
    for path in laboratory.folder.glob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", ending.encode()))

    assert laboratory.fingerprint().digest == original


def test_renaming_the_file_of_the_step_leaves_the_fingerprint_alone(laboratory: Any, original: str) -> None:
    (laboratory.folder / "steps.py").rename(laboratory.folder / "analysis.py")

    assert laboratory.fingerprint("analysis").digest == original


def test_renaming_the_file_of_a_helper_leaves_the_fingerprint_alone(laboratory: Any, original: str) -> None:
    (laboratory.folder / "late.py").rename(laboratory.folder / "later.py")
    laboratory.edit("steps.py", "from .late import", "from .later import")

    assert laboratory.fingerprint().digest == original


def test_moving_the_step_into_a_package_inside_leaves_the_fingerprint_alone(laboratory: Any, original: str) -> None:
    (laboratory.folder / "inner").mkdir()
    text = (laboratory.folder / "steps.py").read_text(encoding="utf-8")
    (laboratory.folder / "inner" / "__init__.py").touch()
    moved = (
        text.replace("from . import", "from .. import").replace("from .l", "from ..l").replace("from .c", "from ..c")
    )
    moved = moved.replace("from .f", "from ..f").replace("from .s", "from ..s")
    (laboratory.folder / "inner" / "steps.py").write_text(moved, encoding="utf-8")

    assert laboratory.fingerprint("inner.steps").digest == original


def test_renaming_the_step_leaves_the_fingerprint_alone(laboratory: Any, original: str) -> None:
    laboratory.edit("steps.py", "def analyze(", "def analyse(")

    assert laboratory.fingerprint(function="analyse").digest == original


def test_running_the_step_leaves_the_fingerprint_alone(laboratory: Any, original: str, tmp_path: Path) -> None:
    step = laboratory.module().analyze
    step(tmp_path, tmp_path, out=tmp_path)
    step(tmp_path, tmp_path, out=tmp_path)

    assert laboratory.fingerprint().digest == original
