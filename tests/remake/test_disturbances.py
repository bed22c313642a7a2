"""Results whose surroundings, source, inputs or bytes were disturbed in one way: `reproduce` names which.

Each disturbance is a row: a step, what is disturbed, the verdict, and what the answer has to name. Every third runs by
day; all do, and those that need packages of an index, with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.remake.compare import DIFFERS, IDENTICAL, WITHIN
from crucible_lineage.remake.driver import FAILED, NOT_MADE
from tests.nights import NIGHTLY, share

MATERIAL = Path(__file__).with_name("disturbed")


@dataclass(frozen=True)
class Row:
    """A step, a disturbance, and the finding to expect."""

    disturbance: str
    step: str
    verdict: str
    names: tuple[str, ...]
    change: Callable[[Path], None] = lambda bundle: None
    variables: dict[str, str] = field(default_factory=dict)
    python: str = "here"
    options: tuple[str, ...] = ()
    is_nightly: bool = False


def source(path: str, old: str, new: str) -> Callable[[Path], None]:
    """Change a text in all kept sources."""

    def change(bundle: Path) -> None:
        for kept in (bundle / "remake" / "source").glob("*.zip"):
            with zipfile.ZipFile(kept) as archive:
                files = {name: archive.read(name) for name in archive.namelist()}
            with zipfile.ZipFile(kept, "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data.replace(old.encode(), new.encode()) if name == path else data)

    return change


def data(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Change the bytes of a file in the bundle."""

    def change(bundle: Path) -> None:
        (path,) = bundle.glob(f"data/*/{name}")
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    return change


def configured(bundle: Path) -> None:
    """Let this user's Matplotlib settings name another font."""
    folder = bundle / "home" / ".config" / "matplotlib"
    folder.mkdir(parents=True)
    (folder / "matplotlibrc").write_text("font.family: serif\n")


SURROUNDINGS = {
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell", "TZ": "Asia/Tokyo"},
    **{"PYTHONHASHSEED": "1", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
}
V2 = "labtools is 2.0 here, 1.0 by the record"
ROWS = [
    Row("one ulp, by another number of threads", "summed", WITHIN,
        ("1 of 1 numbers differ, by ", "OMP_NUM_THREADS is 3 here, 1 by the record"),
        variables={"OMP_NUM_THREADS": "3"}),
    Row("the same, with no tolerance", "summed", DIFFERS,
        ("line 1, number 1: ", "OMP_NUM_THREADS is 3 here, 1 by the record"), variables={"OMP_NUM_THREADS": "3"},
        options=("--rtol", "0")),
    Row("another kernel of the linear algebra", "multiplied", WITHIN,
        ("numbers differ, by ", "OPENBLAS_CORETYPE is Prescott here, Haswell by the record"),
        variables={"OPENBLAS_CORETYPE": "Prescott"}),
    Row("a changed constant", "smoothed", NOT_MADE, ("its source is not the one that the record names",),
        source("effects.py", "GAIN = 1.5", "GAIN = 1.6")),
    Row("another major version of NumPy", "shown", DIFFERS,
        ("np.float64(3.5)", "numpy is 1.26.4 here, ", "by the record"), python="numpy 1", is_nightly=True),
    Row("a swapped input", "smoothed", NOT_MADE, ("scan.csv of ", "its input scan", "it was replaced"),
        data("scan.csv", b"3.5", b"3.6")),
    Row("settings of this user with another font, which are not read", "plotted", IDENTICAL, (), configured,
        variables={"HOME": "home"}),
    Row("another locale", "located", DIFFERS, ("LC_ALL is C here, C.UTF-8 by the record",), variables={"LC_ALL": "C"}),
    Row("another time zone", "timed", DIFFERS, ("TZ is America/Denver here, Asia/Tokyo by the record",),
        variables={"TZ": "America/Denver"}),
    Row("a missing package", "shown", FAILED,
        ("No module named 'numpy'", "numpy is not installed here"), python="bare"),
    Row("another version of Python", "by_python", DIFFERS, ("Python is ", " by the record"), python="other"),
    Row("an altered file of reads", "responded", NOT_MADE, ("its source is not the one that the record names",),
        source("response.dat", "0.25", "0.35")),
    Row("an altered byte of the recorded output", "responded", IDENTICAL,
        ("the copy here has other bytes than the record",), data("responded.txt", b"0.8", b"0.9")),
    Row("an altered byte of what is made", "byte", DIFFERS, ("byte 2 is the first that differs", V2),
        python="labtools 2"),
    Row("another order of rows", "unordered", DIFFERS,
        ("lines in another order", "PYTHONHASHSEED is 2 here, 1 by the record"), variables={"PYTHONHASHSEED": "2"}),
    Row("NaN of the other sign", "sign", WITHIN, ("with the other sign was made", V2), python="labtools 2"),
    Row("another type", "type", WITHIN, ("y is float64 by the record, float32 was made", V2), python="labtools 2"),
    Row("a dropped column", "column", DIFFERS, ("line 1: 'x,y,z' is recorded, 'x,y' was made", V2),
        python="labtools 2"),
    Row("HDF5, packed otherwise", "hdf5", WITHIN, ("the same numbers in other bytes", V2),
        python="labtools 2"),
    Row("an npz, packed otherwise", "npz", WITHIN, ("the same numbers", V2), python="labtools 2"),
    Row("a zip, packed otherwise", "zip", WITHIN, ("the same content, packed otherwise", V2), python="labtools 2"),
    Row("a time that does not count", "dated", WITHIN, ("created_at differs, which does not count",)),
    Row("a variable of the environment", "placed", DIFFERS,
        ("it reads the variable LAB_SITE, which was not recorded; here it is not set",)),
]  # fmt: skip


def distribution(folder: Path, version: str) -> Path:
    """Provide a folder in which labtools is installed."""
    info = folder / f"labtools-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: labtools\nVersion: {version}\n")
    (info / "RECORD").write_text("labtools.py,,\n")
    text = Path(__file__).with_name("labtools.py").read_text()
    (folder / "labtools.py").write_text(text.replace("VERSION = 1\n", f"VERSION = {version[0]}\n"))
    return folder


@dataclass(frozen=True)
class Disturbed:
    """A bundle of all results, their ids by step, and Pythons for making them again."""

    bundle: Path
    ids: dict[str, str]
    pythons: dict[str, str]


@pytest.fixture(scope="module")
def disturbed(judging: Any, tmp_path_factory: pytest.TempPathFactory, other_python: str) -> Disturbed:
    folder = tmp_path_factory.mktemp("disturbed")
    first, second = (distribution(folder / f"{n}/site-packages", f"{n}.0") for n in "12")
    for material in (judging.MATERIAL / "labkit", MATERIAL):
        laboratory = folder / "laboratory" / material.name.removeprefix("disturbed")
        shutil.copytree(material, laboratory, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    ran = judging.crucible(
        *("run", "pipeline.yaml", "--engine", "local", "--data", folder / "data"),
        cwd=folder / "laboratory",
        **{**judging.VARIABLES, **SURROUNDINGS, "PYTHONPATH": str(first)},
    )
    assert ran["errors"] == {}
    ids = {step: outputs["out"] for step, outputs in ran["datasets"].items()}
    words = ("lineage", ids["all"], "-o", folder / "it.zip", "--data", folder / "data")
    judging.output_of([sys.executable, "-m", "crucible_lineage", *words], cwd=folder)
    with zipfile.ZipFile(folder / "it.zip") as archive:
        archive.extractall(folder / "bundle")
    pythons = {"other": other_python}
    for name in ("bare", "here", "labtools 2"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / name], check=True)
        pythons[name] = str(folder / name / "bin" / "python")
    for name, before in (("here", first), ("labtools 2", second)):
        site = Path(str(sysconfig.get_path("purelib", vars={"base": str(folder / name)})))
        (site / "others.pth").write_text(f"{before}\n{sysconfig.get_path('purelib')}\n")
    return Disturbed(folder / "bundle", ids, pythons)


@pytest.mark.parametrize("row", share(ROWS, 3), ids=lambda row: row.disturbance)
def test_it_is_found_and_its_cause_is_named(disturbed: Disturbed, judging: Any, row: Row, tmp_path: Path) -> None:
    if row.is_nightly and not NIGHTLY:
        pytest.skip("needs an index: CRUCIBLE_NIGHTLY=1")
    python = disturbed.pythons.get(row.python) or with_numpy_1(judging, tmp_path)
    bundle = tmp_path / "bundle"
    shutil.copytree(disturbed.bundle, bundle)
    row.change(bundle)
    changed = {name: str(bundle / value) if name == "HOME" else value for name, value in row.variables.items()}
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def asked(*more: str) -> str:
        command = [python, "-I", str(bundle / "reproduce.py"), disturbed.ids[row.step], "--here", *row.options, *more]
        environment = {**base, **SURROUNDINGS, **changed}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == (0 if row.verdict in (IDENTICAL, WITHIN) else 1), done.stdout + done.stderr
        return done.stdout

    (found,) = json.loads(asked("--json"))
    report = "\n".join([found["said"], *(file["said"] for file in found["files"]), *found["causes"]])
    assert found["verdict"] == row.verdict, report
    for text in (report, *([asked()] if NIGHTLY else [])):
        assert [name for name in row.names if name not in text] == [], text


def with_numpy_1(judging: Any, folder: Path) -> str:
    """Provide a Python of an environment with NumPy 1."""
    environment = folder / "numpy-1"
    judging.output_of(["uv", "venv", "--quiet", "--python", sys.executable, environment], cwd=folder)
    python = environment / "bin" / "python"
    judging.output_of(["uv", "pip", "install", "--quiet", "--python", python, "numpy==1.26.4"], cwd=folder)
    return str(python)
