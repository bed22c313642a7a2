"""Checks, comparisons and impact of datasets in an embedded Crucible, and their commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from crucible_lineage.ask.explain import compare_datasets
from crucible_lineage.ask.impact import code_impact, file_impact, instrument_impact
from crucible_lineage.ask.verify import _of_links, verify_dataset, verify_project
from crucible_lineage.cli import main
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge
from crucible_lineage.provenance.record import compact
from crucible_lineage.provenance.schema import new_record

KEY = "crucible_lineage"
AGENT_FIELDS = ("unique_id", "username", "is_service_account", "local_user")


def provenance_of(lab, mfid):
    return lab.records[mfid]["scientific_metadata"][KEY]


def findings_of(session, mfid=None):
    """Return the findings of links; these records are too short for the rules of records."""
    found = verify_dataset(session, mfid) if mfid else verify_project(session, "demo")
    own = [finding for finding in found.findings if not finding.check.startswith(("record-", "file-"))]
    return [dataset for dataset in own if "it was created, but has no content" not in dataset.message]


def kinds(findings):
    return [(finding.check, finding.ids) for finding in findings]


def test_a_link_taken_away_is_found_by_dataset_and_by_project_and_its_command_mends_it(lab, records):
    scan = lab.raw("scan")
    fixed = lab.derived("corrected", "correct", scan)
    records.hold(lab)
    records.client.datasets.unlink(scan, fixed)

    for found in findings_of(records.session, fixed), findings_of(records.session):
        assert kinds(found) == [("mismatch", (scan, fixed))]
    assert run_by_the_official_client(records, found[0].command) == 0
    assert findings_of(records.session) == []


def run_by_the_official_client(records, command):
    """Return the exit code of a `crucible` command line, as one would type it."""
    program, *words = command.split()
    assert program == "crucible"
    key = (records.session.settings.data / "crucible" / "api_key").read_text().strip()
    where = {"CRUCIBLE_API_URL": records.client.api_url, "CRUCIBLE_API_KEY": key}
    line = [str(Path(sys.executable).with_name("crucible")), *words]
    return subprocess.run(line, env=os.environ | where, stdin=subprocess.DEVNULL, capture_output=True).returncode


def test_every_command_that_a_finding_prints_is_one_that_the_official_client_runs(lab, records):
    scan, other = lab.raw("scan"), lab.raw("other scan")
    lab.derived("corrected", "correct", scan, links=[])
    lab.derived("volume", "reconstruct", scan)
    lab.records[lab.derived("twin", "reconstruct", scan)]["links"] = []
    lab.raw("other scan (calibrated)", links=[lab._link(other, "source", None)])
    records.hold(lab)
    volume = next(mfid for mfid, record in lab.records.items() if record.get("dataset_name") == "volume")
    records.client.datasets.link_parent_child(other, volume, "is_derived_from")

    found = findings_of(records.session)

    assert {"mismatch", "unknown-relationship"} <= {finding.check for finding in found}
    for command in dict.fromkeys(finding.command for finding in found):
        assert run_by_the_official_client(records, command) == 0, command
    assert findings_of(records.session) == []


def test_a_used_dataset_that_is_gone_is_told_without_its_id(lab, records):
    scan = lab.raw("scan")
    fixed = lab.derived("corrected", "correct", scan)
    records.hold(lab)
    records.delete(scan)

    found = findings_of(records.session)

    assert kinds(found) == [("missing-dataset", (scan,)), ("dangling-parent", (fixed,))]


def test_what_the_reader_may_not_see_is_in_no_finding_and_in_no_command(lab):
    fixed = lab.derived("corrected", "correct", lab.raw("scan"))
    graph = LineageGraph(lab.graph.nodes.values(), [*lab.graph.edges.values(), Edge("secret", fixed)])

    found = list(_of_links(graph, graph.nodes, ()))

    assert {finding.check for finding in found} == {"mismatch", "dangling-parent"}
    assert "secret" not in str(found)


def test_long_records_are_compared_whole(lab, records, tmp_path):
    scan = lab.raw("scan")
    made = [lab.derived("corrected", "correct", scan, params={"degree": degree}) for degree in (3, 4)]
    files = {}
    for mfid in made:
        written = provenance_of(lab, mfid)
        written |= {"attempt": 0, "pipeline": None, "supersedes": None, "agent": dict.fromkeys(AGENT_FIELDS)}
        written["software"] = {"python": "3.11", "platform": "", "packages": {}}
        written["recipe"] |= {"kind": "step", "project": "demo", "version": 2}
        for entry in (entry for entries in written["recipe"]["inputs"].values() for entry in entries):
            entry["origin"] = entry.pop("mfid")
        activity = written["activity"]
        activity |= {"ended": activity["started"], "run": None}
        activity["code"] |= {"source": "", "not_covered": [], "git": None}
        record, content = compact(new_record(written), limit_bytes=10)
        short = record.document()
        lab.records[mfid]["scientific_metadata"][KEY] = short
        files[mfid] = tmp_path / mfid / short["attached"]["name"]
        files[mfid].parent.mkdir()
        files[mfid].write_bytes(content)
    records.hold(lab)
    for mfid, path in files.items():
        records.client.files.upload(mfid, path)

    found = compare_datasets(records.session, *made)

    assert [(c.field, c.old, c.new) for c in found.difference.changed] == [("params.degree", 3, 4)]
    assert not compare_datasets(records.session, made[0], made[0]).difference


@pytest.mark.parametrize("name", ["0a1b", "f00d-0001", "beef-0002"])
def test_every_command_finds_a_run_by_its_id_or_that_of_prefect_or_the_beginning(lab, records, data, ask, name):
    fixed = lab.derived("corrected", "correct", lab.raw("scan"))
    run = {"engine": "prefect", "run_id": "0a1b2c3d", "flow_run_id": "f00d-0001", "task_run_id": "beef-0002"}
    provenance_of(lab, fixed)["activity"]["run"] = run
    other = lab.derived("volume", "reconstruct", fixed)
    provenance_of(lab, other)["activity"]["run"] = {"engine": "local", "run_id": "0a1c"}
    records.hold(lab)

    of_project = ("--project", "demo", "--run", name, "--data", data)
    assert [dataset["mfid"] for dataset in json.loads(ask("list", *of_project, "--json").stdout)["datasets"]] == [fixed]
    assert [node["id"] for node in json.loads(ask("lineage", *of_project, "--format", "json").stdout)["nodes"]][
        -1
    ] == fixed
    difference = json.loads(ask("diff", name, "0a1c", "--json", "--data", data).stdout)
    assert other in [one["mfid"] for one in difference["added"]]


@pytest.mark.parametrize("command", [("list", "--run"), ("lineage", "--project", "demo", "--run"), ("diff", "0a1b2c")])
def test_every_command_refuses_an_unknown_or_ambiguous_run_and_names_the_nearest(lab, records, data, ask, command):
    for step, run in (("correct", "0a1b2c"), ("smooth", "0a1b2d")):
        made = lab.derived(step, step, lab.raw("scan"))
        provenance_of(lab, made)["activity"]["run"] = {"engine": "local", "run_id": run}
    records.hold(lab)

    unknown, ambiguous = (ask(*command, name, "--data", data) for name in ("0a1b2x", "0a1b"))
    assert (unknown.exit_code, ambiguous.exit_code) == (2, 2)
    assert "run '0a1b2x': no run has this ID, or an ID starting with it; did you mean '0a1b2" in unknown.stderr
    assert "run '0a1b': matches 2 runs; choose one: 0a1b2c, 0a1b2d" in ambiguous.stderr


def test_impact_is_that_of_the_graph_for_each_cause(lab, records):
    scan = lab.raw("scan", instrument_name="beamline")
    fixed = lab.derived("corrected", "correct", scan, code="bad" + 61 * "0")
    below = lab.derived("volume", "reconstruct", fixed, code="good" + 60 * "0")
    graph = records.hold(lab)
    session, sha256 = records.session, lab.files(fixed)[0]["sha256"]

    assert code_impact(session, "bad", ["demo"]).impact.ids == (fixed, below)
    assert file_impact(session, sha256, ["demo"]).impact.ids == (below,)
    assert instrument_impact(session, "beamline", ["demo"]).impact.ids == (fixed, below)
    assert code_impact(session, "bad", ["demo"]).impact.chain(below) == (fixed, below)
    assert graph.nodes.keys() == code_impact(session, "good", ["demo"]).graph.nodes.keys()


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (lambda session: code_impact(session, "0", ["demo"]), "no dataset was made by '0'; there are: c0de"),
        (lambda session: file_impact(session, "0" * 64, ["demo"]), "no dataset of project demo has or used a file"),
        (lambda session: instrument_impact(session, "beamlime", ["demo"]), "there are: beamline"),
    ],
)
def test_a_cause_that_is_not_there_is_no_empty_impact(lab, records, question, message):
    scan = lab.raw("scan", instrument_name="beamline")
    lab.derived("corrected", "correct", lab.derived("x", "y", scan, code="c0de"), code="c0de2")
    records.hold(lab)

    with pytest.raises(InputError, match=message):
        question(records.session)


@pytest.fixture
def ask():
    """Run a command in this process, since many processes would take long to start."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def damaged(lab, records):
    """Provide a laboratory in which a result has lost its link, with the ids of scan and result."""
    scan = lab.raw("scan \x1b[31m", instrument_name="beamline")
    fixed = lab.derived("corrected", "correct", scan)
    lab.derived("corrected", "correct", scan, params={"degree": 4})
    records.hold(lab)
    records.client.datasets.unlink(scan, fixed)
    records.session.close()
    return scan, fixed


def test_diff_and_impact_print_for_people_and_for_programs(lab, damaged, data, ask):
    scan, fixed = damaged
    other = next(mfid for mfid in lab.records if mfid not in damaged)

    ran = ask("diff", fixed, other, "--data", data)
    assert ran.exit_code == 0, ran.stderr
    assert "  params.degree: nothing -> 4" in ran.stdout
    spoken = json.loads(ask("diff", fixed, other, "--json", "--data", data).stdout)
    assert [change["field"] for change in spoken["changed"]] == ["params.degree"]
    assert ask("diff", "run-a", "run-b", "--data", data).exit_code == 2

    ran = ask("impact", scan, "--data", data)
    assert "1 dataset to redo: 1 correct" in ran.stdout
    assert "\x1b" not in ran.stdout
    question = ("impact", "--instrument", "beamline", "--project", "demo", "--json", "--data", data)
    spoken = json.loads(ask(*question).stdout)
    redo = {"mfid": other, "name": "corrected", "step": "correct", "state": "current", "chain": [scan, other]}
    assert spoken["redo"] == [redo]
    assert json.loads(ask(*question, "--until", "2026-02-28").stdout)["redo"] == []
    assert json.loads(ask(*question, "--until", "2026-03-01").stdout)["redo"] == spoken["redo"]


def test_a_long_tree_folds_siblings_and_lists_them_when_asked(lab, records, data, ask):
    scan = lab.raw("scan")
    for number in range(50):
        lab.derived(f"frame {number}", "split", scan)
    records.hold(lab)
    records.session.close()

    for target in (scan,), ("--project", "demo"):
        folded = ask("lineage", *target, "--data", data).stdout
        listed = ask("lineage", *target, "--all", "--data", data).stdout
        assert "50 × split" in folded
        assert len(folded.splitlines()) == 2
        assert len(listed.splitlines()) == 51
    assert ask("lineage", "--project", "demo", "--up", "--data", data).exit_code == 2
    assert ask("lineage", scan, "--project", "demo", "--data", data).exit_code == 2
    assert ask("lineage", "--project", "demo", "--format", "json", "--data", data).stdout.count("is_derived_from") == 50


def test_a_project_is_shown_by_run(lab, records, data, ask):
    scan = lab.raw("scan")
    activity = {"step": "correct", "function": "lab:correct", "run": {"engine": "local", "run_id": "run-7"}}
    fixed = lab.derived("corrected", "correct", scan, activity=activity)
    lab.derived("volume", "reconstruct", fixed)
    records.hold(lab)

    def show(*arguments):
        return ask("lineage", *arguments, "--data", data)

    of_run = show("--project", "demo", "--run", "run-7").stdout
    assert [line.split("── ")[-1].split()[0] for line in of_run.splitlines()] == [scan, fixed]
    nothing = show("--project", "demo", "--run", "run-8")
    assert (nothing.exit_code, "run 'run-8'" in nothing.stderr) == (2, True)
    assert show(scan, "--run", "run-7").exit_code == 2


def test_a_file_that_only_crucible_lists_has_an_impact(lab, records, tmp_path):
    scan = lab.raw("scan")
    fixed = lab.derived("corrected", "correct", scan)
    written = provenance_of(lab, fixed)
    (tmp_path / "log.txt").write_text("wrong")
    records.hold(lab)
    uploaded = records.client.files.upload(scan, tmp_path / "log.txt").file
    spared = file_impact(records.session, uploaded.sha256_hash, ["demo"])
    written["used"][0]["files"] = []
    records.client.metadata.merge(fixed, {KEY: {"used": written["used"]}})

    assert spared.impact.ids == ()
    assert file_impact(records.session, uploaded.sha256_hash, ["demo"]).impact.ids == (fixed,)
