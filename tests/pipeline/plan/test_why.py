"""`why` explains how a dataset was made, or why a step would run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.explain import explain
from crucible_lineage.errors import ForbiddenError
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.session import Session

Run = Callable[..., RunResult]


@pytest.fixture
def why(session: Session) -> Callable[[str], str]:
    def explanation(mfid: str) -> str:
        return "\n\n".join("\n".join(paragraph) for paragraph in explain(session, mfid).paragraphs)

    return explanation


def test_the_explanation_of_a_result_names_step_code_parents_parameters_and_user(lab: Any, run: Run, why: Any) -> None:
    result = run(lab.pipeline)
    scaled, first = result.datasets["scaled"]["out"], result.inputs["first"][0]
    explanation = why(scaled)
    assert explanation.startswith(
        f"first (scaled) ({scaled})\nis step 'scaled' of pipeline counting, made by {lab.module}:scale"
    )
    assert "with code " in explanation
    assert f"Made from\n  counts: first ({first}), first.txt" in explanation
    assert "Parameters\n  factor = 3.0" in explanation
    assert "\nBy " in explanation.replace("\n\n", "\n")
    assert "On Python 3." in explanation
    assert "crucible-lineage " in explanation
    assert f"In run {result.run_id} (local)" in explanation
    assert "supersedes" not in explanation


def test_a_parent_that_the_key_may_not_read_has_no_name(
    lab: Any, run: Run, why: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(lab.pipeline)
    first, get = result.inputs["first"][0], session.client.datasets.get

    def refuse(mfid: str, **options: Any) -> Any:
        if mfid == first:
            raise ForbiddenError("not yours", status=403)
        return get(mfid, **options)

    monkeypatch.setattr(session.client.datasets, "get", refuse)
    assert f"counts: a dataset that was deleted, or is hidden from this key ({first})" in why(
        result.datasets["scaled"]["out"]
    )


def test_the_explanation_names_the_superseded_result_and_the_differences(lab: Any, run: Run, why: Any) -> None:
    first = run(lab.pipeline)
    lab.file(f"{lab.module}_2.py", (lab.folder / f"{lab.module}.py").read_text().replace("* factor", "/ factor"))
    text = (
        lab.pipeline.read_text()
        .replace(f"{lab.module}:scale", f"{lab.module}_2:scale")
        .replace("factor: 3", "factor: 4")
    )
    lab.declare(text)
    second = run(lab.pipeline)
    lines = why(second.datasets["scaled"]["out"]).rpartition("\n\n")[2].splitlines()
    assert lines[0] == f"Replaces {first.datasets['scaled']['out']}"
    assert lines[1].startswith("  the code of the step itself changed: ")
    assert lines[2] == "  parameter factor changed: 3.0 -> 4.0"
    assert any(line.lstrip().startswith("-") and "* factor" in line for line in lines)
    assert any(line.lstrip().startswith("+") and "/ factor" in line for line in lines)
    total = why(second.datasets["total"]["out"])
    assert "  input left: scaled.txt changed: sha " in total
    forced = run(lab.pipeline, StepChoice(forced=("scaled",)))
    again = why(forced.datasets["scaled"]["out"])
    assert "of pipeline counting, attempt 2, made by" in again
    assert "forced rerun: same values and bytes" in again


def test_measured_manual_and_foreign_datasets_are_described_as_such(
    lab: Any, session: Session, run: Run, why: Any, cli: Any
) -> None:
    raw = run(lab.pipeline).inputs["first"][0]
    assert "was measured, from the files first.txt" in why(raw)
    lab.file("drawn.txt", "by hand")
    drawn = cli("register", lab.folder / "drawn.txt", "--project", "lab", "--parent", raw, "--note", "drawn", "--json")
    mfid = json.loads(drawn.stdout)["mfid"]
    assert "was made manually from its parents, from the files drawn.txt: drawn" in why(mfid)
    assert f"(lab) {raw}" not in why(mfid)
    assert raw in why(mfid)
    foreign = session.client.datasets.create({"project_id": "lab", "dataset_name": "theirs"}).dsid
    assert "it has no provenance record. How it was made is unknown" in why(foreign)


def test_the_command_explains_datasets_and_steps(lab: Any, data: Path, run: Run, cli: Any) -> None:
    made = run(lab.pipeline).datasets
    ran = cli("why", made["total"]["out"])
    assert (ran.exit_code, "is step 'total' of pipeline counting" in ran.stdout) == (0, True)
    as_json = json.loads(cli("why", made["total"]["out"], "--json").stdout)
    assert as_json["mfid"] == made["total"]["out"]
    assert as_json["record"]["status"] == "complete"

    fresh = cli("why", "total", lab.pipeline)
    assert (fresh.exit_code, "up to date: the result was made by this code" in fresh.stdout) == (0, True)
    assert "scaled " not in fresh.stdout
    lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 4"))
    stale = cli("why", "total", lab.pipeline)
    assert "because parent scaled will be rerun; this result is kept if the output is identical" in stale.stdout
    assert f"make it: crucible-lineage run {lab.pipeline} --data {data}\n" in stale.stdout, "total alone cannot be made"
    assert f"run {lab.pipeline} --from scaled --data {data}\n" in cli("why", "scaled", lab.pipeline).stdout
    chosen = cli("why", "scaled", lab.pipeline, "--set", "scaled.factor=5", "--json")
    (step,) = json.loads(chosen.stdout)["steps"]
    assert step["causes"][0].startswith("parameter factor changed: 3.0 -> 5.0")

    for arguments, words in (
        (("totl", lab.pipeline), "did you mean 'total'?"),
        (("total",), "name its pipeline too"),
        (("0tr5k2ndm5zvd000nr21qakeh4",), "does not exist, or is not visible to this key"),
    ):
        refused = cli("why", *arguments)
        assert (refused.exit_code, words in refused.stderr) == (2, True), refused.stderr
