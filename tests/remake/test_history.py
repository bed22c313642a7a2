"""The consequences of a difference, and the evidence that a step is non-deterministic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.remake.driver import NOT_DETERMINISTIC
from crucible_lineage.session import Session

pytestmark = pytest.mark.usefixtures("keeping")

STEPS = """
import random
from pathlib import Path


def draw(counts: Path, *, out: Path):
    (out / "x.txt").write_text(repr(random.random()))


def double(counts: Path, *, out: Path):
    print(random.random())
    (out / "x.txt").write_text(repr(2 * float(counts.read_text().split()[0])))
"""
PIPELINE = """
pipeline: odd
project: lab
inputs:
  first: {file: first.txt}
steps:
  drawn: {uses: LABMODULE:draw, inputs: {counts: first}}
  doubled: {uses: LABMODULE:double, inputs: {counts: drawn}}
  twice: {uses: LABMODULE:double, inputs: {counts: doubled}}
"""


def ask(session: Session, *arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--data", str(session.settings.data)])


def asked(session: Session, *arguments: object) -> Any:
    return json.loads(ask(session, *arguments, "--json").stdout)


@pytest.fixture
def made(lab: Any, session: Session) -> dict[str, str]:
    """Provide the results, by step."""
    lab.file(f"{lab.module}.py", STEPS)
    lab.declare(PIPELINE)
    ran = asked(session, "run", lab.pipeline, "--engine", "local")
    return {step: found["out"] for step, found in ran["datasets"].items()}


def test_a_difference_says_how_to_see_what_was_made_from_it(made: dict[str, str], session: Session) -> None:
    shown = ask(session, "reproduce", made["drawn"], "--here").output
    assert f"what was made from it: crucible-lineage impact {made['drawn']}" in shown
    assert "impact" not in ask(session, "reproduce", made["doubled"], "--here").output


def test_other_bytes_of_the_same_recipe_are_remembered(made: dict[str, str], lab: Any, session: Session) -> None:
    assert asked(session, "show", made["drawn"])["not_deterministic"] is None
    ran = asked(session, "run", lab.pipeline, "--engine", "local", "--force", "drawn", "--force", "doubled")
    newer, same = ran["datasets"]["drawn"]["out"], ran["datasets"]["doubled"]["out"]
    assert newer != made["drawn"]
    for mfid, other in ((newer, made["drawn"]), (made["drawn"], newer)):
        reason = asked(session, "show", mfid)["not_deterministic"]
        assert reason == f"{NOT_DETERMINISTIC}: the same code, parameters and inputs gave other bytes in {other}"
        assert reason in ask(session, "show", mfid).output
    assert asked(session, "show", same)["not_deterministic"] is None, "what it printed does not count"
    assert asked(session, "show", made["twice"])["not_deterministic"] is None


def test_results_are_kept_in_a_relative_folder_and_chosen_from_a_project(
    made: dict[str, str], session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # steps run in other folders
    ran = ask(session, "reproduce", made["doubled"], "--here", "--keep", "kept")
    assert (ran.exit_code, list((tmp_path / "kept").rglob("x.txt")) != []) == (0, True), ran.output
    assert "1 of 1 result reproduced" in ran.output
    assert len(asked(session, "reproduce", "--project", "lab", "--sample", "2", "--here")["results"]) == 2
