"""What the README shows works: its pipeline runs, and its commands exist and say what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.page import page_data

ROOT = Path(__file__).parents[1]
README_FILE = ROOT / "README.md"
README = README_FILE.read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def test_its_pipeline_is_checked_planned_run_and_shown(tmp_path: Path, command: Any) -> None:
    (tmp_path / "mysteps.py").write_text(block("python", "def scale"))
    (tmp_path / "pipeline.yaml").write_text(block("yaml", "pipeline: counting"))
    (tmp_path / "counts.txt").write_text("1\n2\n")
    mfid = "MFID"
    ran = []
    lines = [*block("console", "crucible-lineage check").splitlines(), *block("console", "it.html").splitlines()]
    for line in lines:
        arguments = line.removeprefix("$ crucible-lineage ").partition("  #")[0].split()
        if arguments[0] == "serve":  # tested where the server is
            continue
        arguments = [mfid if part == "MFID" else part for part in arguments]
        arguments = [
            str(tmp_path / part) if part in ("pipeline.yaml", "it.html", "FOLDER") else part for part in arguments
        ]
        options = [] if arguments[0] == "check" else ["--data", tmp_path / "data"]
        result = command(*arguments, *options)
        assert result.returncode == 0, (line, result.stderr)
        ran.append(arguments[0])
        if arguments[0] == "run":
            mfid = re.findall(r"lineage ([0-9a-z]{26})", result.stdout)[-1]
    assert ran == ["check", "plan", "run", "list", "show", "get", "table", "runs", "lineage", "lineage"]
    assert (tmp_path / "it.html").exists()


def test_its_numbers_are_those_of_the_demo(demo_origin: Any, demo_data: Path, command: Any) -> None:
    printed = json.loads(demo_origin[1])
    errors = [abs(row["difference_cm1"]) for row in printed["bands"]]
    assert f"| silicon and neon | {sum(errors) / len(errors):.2f} |" in README
    shown = command("lineage", printed["datasets"]["axis"], "--data", demo_data, "--format", "html").stdout
    (axis,) = [detail["metadata"] for detail in page_data(shown)["details"] if "held_out_rms_cm1" in detail["metadata"]]
    assert f"{axis['held_out_rms_cm1']} cm-1 rms, against {axis['held_out_rms_shift_cm1']}" in README


def test_every_command_has_help_and_a_place_in_the_guide(command: Any) -> None:
    from crucible_lineage.cli import COMMANDS

    guide = "".join(page.read_text(encoding="utf-8") for page in [README_FILE, *(ROOT / "docs").glob("*.md")])
    for name in COMMANDS:
        assert f"crucible-lineage {name}" in guide, name
        assert command(name, "--help").returncode == 0
