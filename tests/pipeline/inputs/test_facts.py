"""A step may take facts about its parents, which are part of its recipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from crucible_lineage import Facts, connect, registering
from crucible_lineage.ask.explain import explain
from crucible_lineage.client.datasets import DatasetCalls
from crucible_lineage.client.files import IngestionCalls
from crucible_lineage.errors import InputError, NotFoundError
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.provenance.recipe import derived_mfid
from crucible_lineage.session import Session
from tests.runs import forget

Run = Callable[..., RunResult]

STEPS = """
import json
from pathlib import Path

from crucible_lineage import Facts, step


@step(measurement="Raman", data_type="mean")
def mean(spectra: list[Path], *, facts: Facts, scale: float = 1.0, out: Path) -> dict:
    pairs = list(zip(spectra, facts["spectra"], strict=True))
    assert [path.name for path, _ in pairs] == [one.files[0] for _, one in pairs]
    values = [scale * float(path.read_text()) / one.metadata["power_mW"] for path, one in pairs]
    (out / "mean.txt").write_text(str(sum(values) / len(values)))
    (out / "facts.json").write_text(json.dumps(facts.to_json()))
    return {"fit": {}, "mean": sum(values) / len(values)}


@step
def note(mean: Path, dark: Path | None = None, *, known: Facts, out: Path) -> dict:
    assert (dark, known["dark"]) == (None, ())
    (out / "note.txt").write_text(f"{known.one('mean').name} {known.one('mean').metadata['mean']}")
    return {}
"""
PIPELINE = r"""
pipeline: power
project: lab
inputs:
  spectra:
    file: ["a_5mW.txt", "b_10mW.txt"]
    each: true
    instrument_name: A
    measurement: Raman
    keywords: [polystyrene]
    timestamp: "2024-05-01T14:00:00+02:00"
    metadata: {power_mW: from name '_(\d+)mW'}
steps:
  mean: {uses: "LABMODULE:mean", inputs: {spectra: spectra}}
  note: {uses: "LABMODULE:note", inputs: {mean: {from: mean, files: mean.txt}}}
"""


@pytest.fixture
def power(lab: Any) -> Path:
    lab.file(f"{lab.module}.py", STEPS)
    lab.file("a_5mW.txt", "10")
    lab.file("b_10mW.txt", "30")
    path: Path = lab.declare(PIPELINE)
    return path


def test_a_step_gets_the_facts_about_its_parents_from_crucible(
    power: Path, run: Run, session: Session, text_of: Any, record_of: Any, cli: Any
) -> None:
    result = run(power)
    assert result.ok, result.errors
    mean, note = (result.datasets[name]["out"] for name in ("mean", "note"))
    files = {file.filename: file for file in session.client.datasets.list_files(mean)}
    given = Facts.from_json(json.loads(session.client.files.download_bytes(files["facts.json"])))
    first, second = given["spectra"]
    assert (first.name, first.files, first.metadata["power_mW"]) == ("a_5mW.txt", ("a_5mW.txt",), 5)
    assert (second.instrument, second.measurement, second.keywords) == ("A", "Raman", ("polystyrene",))
    assert first.timestamp == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert text_of(note) == "a_5mW.txt and 1 more (mean) 2.5", "facts about a result include what its step returned"
    recipe = record_of(mean)["recipe"]
    assert recipe["facts"]["spectra"][1]["metadata"]["power_mW"] == 10
    assert derived_mfid(recipe) == mean
    assert cli("verify", "--project", "lab").exit_code == 0
    assert run(power).executed == []


def test_a_changed_fact_makes_the_step_stale_and_why_names_it(
    power: Path, run: Run, planned: Any, session: Session, cli: Any
) -> None:
    first = run(power)
    raw = first.inputs["spectra"][0]
    session.client.metadata.merge(raw, {"power_mW": 4, "laser": {"nm": 633}})
    plan = planned(power)
    assert [plan[name].state for name in ("mean", "note")] == ["stale", "stale"]
    causes = [cause.partition(" (since ")[0] for cause in plan["mean"].causes]
    assert causes == [
        "metadata.power_mW of 'a_5mW.txt' (input spectra) changed: 5 -> 4",
        "metadata.laser.nm of 'a_5mW.txt' (input spectra) changed: not given -> 633",
    ]
    second = run(power)
    assert second.executed == ["mean", "note"]
    mean = second.datasets["mean"]["out"]
    story = "\n".join(line for paragraph in explain(session, mean).paragraphs for line in paragraph)
    assert (
        f"Replaces {first.datasets['mean']['out']}\n  metadata.power_mW of 'a_5mW.txt' (input spectra) changed" in story
    )
    assert '  spectra: b_10mW.txt, {"instrument": "A", "measurement": "Raman"' in story
    differs = cli("diff", first.datasets["mean"]["out"], mean)
    assert "facts.spectra[1].metadata.power_mW" in differs.stdout
    session.client.datasets.add_keyword(raw, "old")
    assert "keywords of 'a_5mW.txt'" in planned(power)["mean"].causes[0]
    assert cli("rerun", mean, "--dry-run").exit_code == 0


def test_a_new_file_is_ingested_before_a_step_gets_facts_about_it(
    lab: Any, run: Run, session: Session, text_of: Any
) -> None:
    lab.file(
        f"{lab.module}.py",
        "from pathlib import Path\nfrom crucible_lineage import Facts\n\n"
        "def columns(scan: Path, *, facts: Facts, out: Path) -> None:\n"
        "    (out / 'columns.txt').write_text(str(facts.one('scan').metadata['table']['columns']))\n",
    )
    lab.file("scan.csv", "x,y\n1,2\n2,3\n")
    path = lab.declare(
        "pipeline: read\nproject: lab\ninputs:\n  scan: {file: scan.csv}\nsteps:\n"
        '  columns: {uses: "LABMODULE:columns", inputs: {scan: scan}}\n'
    )
    result = run(path)
    assert result.ok, result.errors
    assert "'name': 'x'" in text_of(result.datasets["columns"]["out"])
    assert run(path).executed == []


def test_a_step_goes_on_without_facts_that_no_worker_of_the_service_reads(
    power: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    get, follow = IngestionCalls.get, "crucible_lineage.pipeline.plan.facts"
    monkeypatch.setattr(IngestionCalls, "get", lambda self, n: get(self, n).model_copy(update={"status": "requested"}))
    monkeypatch.setattr(IngestionCalls, "iter", lambda self, **_: iter(()))
    monkeypatch.setattr(f"{follow}.SOON_S", 0.1)
    monkeypatch.setattr(f"{follow}.INGESTED_WITHIN_S", 3.0)
    assert run(power).ok
    waiting, going_on = [record.message for record in caplog.records if record.name == follow]
    assert waiting.startswith("waiting until Crucible has read 2 files, whose facts a step takes, at most ")
    assert going_on.startswith("going on without what Crucible has not read yet: a_5mW.txt of 'a_5mW.txt', b_10mW")


def test_a_parent_deleted_while_its_facts_are_read_fails_one_step(power: Path, run: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(DatasetCalls, "get_keywords", Mock(side_effect=NotFoundError("it is gone")))
    assert "cannot be read: it does not exist, or is not visible" in run(power).errors["mean"]


SCRIPT = """
import json, sys
(known,) = json.load(open(sys.argv[1]))["spectrum"]
open(sys.argv[2] + "/power.txt", "w").write(f"{known['metadata']['power_mW']} {known['timestamp']} {known['files'][0]}")
"""
COMMANDS = """steps:
  plain: {run: [PYTHON, power.py, "{facts}", "{out}", "{inputs.spectrum}"], inputs: {spectrum: spectra}}
"""


def test_a_command_gets_facts_in_a_file(lab: Any, power: Path, run: Run, text_of: Any) -> None:
    lab.file("power.py", SCRIPT)
    lab.declare(PIPELINE.partition("steps:")[0] + COMMANDS.replace("PYTHON", sys.executable))
    result = run(power)
    assert result.ok, result.errors
    assert text_of(result.datasets["plain[b_10mW.txt]"]["out"]) == "10 2024-05-01T12:00:00+00:00 b_10mW.txt"
    assert run(power).executed == []


def test_a_called_step_gets_facts_too(
    power: Path, lab: Any, data: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(lab.folder))
    step = vars(__import__(lab.module))["mean"]
    catalogue = connect(data=data)
    paths = [lab.folder / "a_5mW.txt", lab.folder / "b_10mW.txt"]
    with registering("lab", catalogue=catalogue):
        spectra = [
            session.client.datasets.create(
                {"dataset_name": path.stem, "project_id": "lab"}, scientific_metadata={"power_mW": power_mW}
            ).dsid
            for path, power_mW in zip(paths, (5, 10), strict=True)
        ]
        for mfid, path in zip(spectra, paths, strict=True):
            session.client.files.upload(mfid, path)
        made, again = step(spectra), step(spectra)
        assert (made.results["mean"], made.mfid) == (2.5, again.mfid)
        session.client.datasets.update_scientific_metadata(spectra[0], {"power_mW": 2})
        other = step(spectra)
        assert (other.results["mean"], other.mfid != made.mfid) == (4.0, True)
        with pytest.raises(InputError, match="by Crucible; remove it"):
            step(spectra, facts=Facts({}))


def test_fields_that_the_service_adds_later_change_no_id(
    power: Path, lab: Any, run: Run, session: Session, planned: Any
) -> None:
    lab.file(f"{lab.module}.py", STEPS.replace('@step(measurement="Raman", data_type="mean")', "@step"))
    first = run(power)
    mean = first.datasets["mean"]["out"]
    session.client.datasets.update(mean, measurement="Image", data_type="array")
    session.client.datasets.add_keyword(mean, "Image")
    session.client.datasets.add_keyword(mean, "found by a worker")
    assert {name: step.state for name, step in planned(power).items()} == {"mean": "fresh", "note": "fresh"}
    again = run(power)
    assert (again.executed, again.datasets["note"]) == ([], first.datasets["note"])


SHARED = r"""
from pathlib import Path

from crucible_lineage import Facts


def smooth(spectrum: Path, *, out: Path) -> dict:
    (out / "smooth.txt").write_text(spectrum.read_text())
    return {"own": 1}


def summary(spectra: list[Path], *, facts: Facts, sample: str, out: Path) -> dict:
    known = facts["spectra"]
    metadata = [dict(one.metadata) for one in known]
    (out / "summary.txt").write_text(sample)
    return {"instruments": [one.instrument for one in known], "metadata": metadata}
"""
SHARED_PIPELINE = r"""
pipeline: shared
project: lab
inputs:
  spectra:
    each:
      - {file: a.txt, metadata: {sample: gold, number: 1}}
      - {file: b.txt, metadata: {sample: gold, number: 2}}
    instrument_name: A
    timestamp: "2024-05-01T14:00:00+02:00"
steps:
  smooth: {uses: "LABMODULE:smooth", inputs: {spectrum: spectra}}
  again: {uses: "LABMODULE:smooth", inputs: {spectrum: smooth}}
  summary: {uses: "LABMODULE:summary", inputs: {spectra: again}, params: {sample: "{spectra.metadata.sample}"}}
"""


def test_facts_that_a_result_lacks_come_from_the_data_behind_it(
    lab: Any, run: Run, session: Session, planned: Any, record_of: Any
) -> None:
    lab.file(f"{lab.module}.py", SHARED)
    lab.file("a.txt", "1")
    lab.file("b.txt", "2")
    result = run(lab.declare(SHARED_PIPELINE))
    assert result.ok, result.errors
    metadata = session.client.datasets.get(result.datasets["summary"]["out"], include_metadata=True).scientific_metadata
    assert metadata
    assert metadata["instruments"] == ["A", "A"]
    assert [(one["sample"], one["number"], one["own"]) for one in metadata["metadata"]] == [
        ("gold", 1, 1), ("gold", 2, 1)
    ]  # fmt: skip
    assert run(lab.pipeline).executed == []
    session.client.metadata.merge(result.inputs["spectra"][0], {"number": 3})
    plan = planned(lab.pipeline)
    assert {name for name, step in plan.items() if step.state != "fresh"} == {"summary"}
    assert "metadata.number of" in plan["summary"].causes[0]
    forget(session.mirror)
    assert planned(lab.pipeline)["summary"].datasets == plan["summary"].datasets
