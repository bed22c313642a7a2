"""Workflows and hooks call what the Makefile has, and a release is refused unless tag, version and changes agree."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
ACTIONLINT = Path(sys.executable).with_name("actionlint")


def made(text: str) -> set[str]:
    """The targets that a text calls."""
    return set(re.findall(r"\bmake (?:[A-Z]+=\S+ )*([a-z][\w-]*)", text))


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_a_workflow_does_what_the_makefile_does(path: Path) -> None:
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    for command in commands:
        assert command.startswith(("make ", "sudo apt-get ")), command
        assert made(command) <= TARGETS, command
    for name in {step["uses"] for step in steps(path) if "uses" in step}:
        assert re.search(r"@[0-9a-f]{40}$", name) or name.startswith("pypa/"), f"{name} is not pinned by its commit"


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_workflows_are_valid(path: Path, tmp_path: Path) -> None:
    checked = subprocess.run([ACTIONLINT, path], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(path.read_text().replace("runs-on:", "run-on:", 1))
    assert subprocess.run([ACTIONLINT, broken], capture_output=True, timeout=60).returncode == 1


def release_fault(tag: str, version: str, changes: str) -> str | None:
    spec = importlib.util.spec_from_file_location("release_tag", ROOT / "docs" / "release_tag.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fault: str | None = module.fault(tag, version, changes)
    return fault


@pytest.mark.parametrize(
    ("tag", "changes", "fault"),
    [
        ("v1.2.3", "# Changes\n\n## 1.2.3, 2026-12-01\n", None),
        ("1.2.3", "## 1.2.3, 2026-12-01\n", "tag it v1.2.3"),
        ("v1.2.4", "## 1.2.3, 2026-12-01\n", "tag it v1.2.3"),
        ("v1.2.3", "## 1.2.2, 2026-12-01\n", "no section for 1.2.3"),
        ("v1.2.3", "## 1.2.3, not released\n", "the day of the release"),
    ],
)
def test_a_tag_becomes_a_release_if_version_and_changes_agree(tag: str, changes: str, fault: str | None) -> None:
    found = release_fault(tag, "1.2.3", changes)
    assert found is None if fault is None else found is not None and fault in found
