"""The package as others install it: every module is there, whatever folder one stands in."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.nights import by_night

ROOT = Path(__file__).parents[2]
FOLDERS = {"tasks": "tasks", "flows": "flows", "deployments": "deployments", "crucible_lineage": ""}


def modules_in_the_repository() -> set[str]:
    found = set()
    for folder, inner in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = [
                "crucible_lineage",
                *([inner] if inner else []),
                *path.relative_to(ROOT / folder).with_suffix("").parts,
            ]
            found.add(".".join(part for part in parts if part != "__init__"))
    return found


def _built(source: Path, folder: Path) -> Path:
    """Return the wheel of a source, built in a folder."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, source]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what git would give to others."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return _built(source, folder)


def test_the_wheel_holds_every_module_and_the_demo_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for module in modules_in_the_repository():
        path = module.replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & names, f"{module} is not in the wheel"
    assert "crucible_lineage/demo/data/neon_new2_Z010.txt" in names
    assert "crucible_lineage/demo/data/LICENSE-ramanchada2.txt" in names
    assert "crucible_lineage/deployments/pipelines/raman.yaml" in names
    assert "crucible_lineage/py.typed" in names
    assert not [name for name in names if "example" in name or "fetch_data" in name]
    assert not [name for name in names if name.startswith(("tasks/", "flows/", "tests/", "deployments/", "examples/"))]


def test_an_index_shows_the_readme_with_its_links_and_picture(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    links = re.findall(r"\]\((\S+?)\)", metadata)
    assert len(links) > 10
    assert all(link.startswith("https://") for link in links)
    (home,) = re.findall("^Project-URL: Repository, (.*)$", metadata, re.MULTILINE)
    assert f"{home}/raw/main/docs/images/raman-lineage.svg" in links


@by_night("a second build")
def test_the_sdist_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = wheel.parent / "source"
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, timeout=120)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert {"tests", "docs", "examples"} <= {name.split("/")[1] for name in archive.getnames() if "/" in name}
    built = _built(sdist, tmp_path)
    assert set(zipfile.ZipFile(built).namelist()) == set(zipfile.ZipFile(wheel).namelist())


POSIX_ONLY = {
    "crypt",
    "curses",
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
    "tty",
}


def test_no_module_wants_at_its_top_what_windows_does_not_have() -> None:
    """Instrument PCs run Windows: they import the package too."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not POSIX_ONLY & set(names), (path, names)


@by_night("an environment of its own")
def test_the_wheel_works_where_somebody_has_tasks_and_flows_of_their_own(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    for name in ("tasks", "flows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"mine = {name!r}\n")
    code = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        f"for name in {sorted(modules_in_the_repository() - {'crucible_lineage.__main__'})!r}:\n"
        "    module = importlib.import_module(name)\n"
        f"    assert module.__file__ is None or module.__file__.startswith({str(site)!r}), module.__file__\n"
        "import tasks, flows\n"
        "print(tasks.mine, flows.mine)\n"
    )
    # -S would hide the dependencies; the editable install stands behind the wheel on the path
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.stdout.split() == ["tasks", "flows"], ran.stderr


def test_the_editable_install_works_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("mine = 'flows'\n")
    imports = "import flows, crucible_lineage.flows, crucible_lineage.tasks"
    code = f"{imports}; print(flows.mine, crucible_lineage.flows.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.stdout.split() == ["flows", "crucible_lineage.flows"], ran.stderr


def test_the_pinned_requirements_name_no_address() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text
        pinned = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
        assert len(pinned) > 30 or path.stem == "uv"
        assert all("==" in package and "--hash=sha256:" in package for package in pinned), path
