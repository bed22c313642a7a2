"""Datasets are found by part of an id or by name, listed, shown and fetched; runs are listed and compared."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.lineage.labels import short_id


@pytest.mark.parametrize(
    "form", [lambda mfid: mfid, lambda mfid: mfid[:24], short_id, lambda mfid: f"{mfid[:8]}...{mfid[-6:]}"]
)
def test_printed_ids_can_be_pasted_everywhere(project: Any, form: Any) -> None:
    mfid, other = project.fitted("weak-1.txt"), project.fitted("weak-2.txt")
    for command in (
        ("show",),
        ("lineage",),
        ("why",),
        ("verify",),
        ("impact",),
        ("show", "--log"),
        ("rerun", "--dry-run"),
    ):
        project.ask(command[0], form(mfid), *command[1:])
    assert project.ask_json("show", form(mfid))["mfid"] == mfid
    assert not project.ask_json("diff", form(mfid), form(other))["same"]


def test_a_name_means_the_current_dataset(project: Any) -> None:
    shown = project.ask_json("show", "weak-1.txt (fitted)")
    assert (shown["mfid"], shown["state"]) == (project.fitted("weak-1.txt"), "current")
    assert project.ask_json("show", "WEAK-1.txt (Fitted)")["mfid"] == shown["mfid"]
    refused = project.ask("show", "weak-9.txt (fitted)", code=2).stderr
    assert "no dataset has this name or an ID starting with it; did you mean 'weak-" in refused
    listed = project.ask("show", "nothing at all like it", code=2).stderr.partition("there are: ")[2]
    assert len(listed.partition(" and ")[0].split(", ")) == 3, listed
    elsewhere = ("diff", shown["mfid"], "weak-2.txt (fitted)", "--project", "nowhere")  # an id is one anywhere
    assert "project 'nowhere' does not exist" in project.ask(*elsewhere, code=2).stderr
    refused = project.ask("show", project.fitted("weak-1.txt")[:4], code=2).stderr
    assert "datasets; choose one: " in refused
    assert project.fitted("weak-1.txt", 0) in refused or " more" in refused


def test_a_list_is_selected_by_conditions_runs_and_steps(project: Any) -> None:
    def names(*words: str) -> list[str]:
        return [dataset["dataset_name"] for dataset in project.ask_json("list", *words)["datasets"]]

    assert sorted(names("--where", "instrument == 'Horiba'")) == ["weak-1.txt", "weak-2.txt"]
    assert names("--where", "name == 'strong-1.txt'") == ["strong-1.txt"]
    assert names("--where", "measurement == 'Raman'", "--sort", "-name")[:2] == ["weak-2.txt", "weak-1.txt"]
    assert names("--where", "results.peak_nm > 11") == ["strong-2.txt (fitted)"]
    assert len(names("--where", "state == 'current'")) == 5
    shown = "flags == None and doubtful == None"
    assert len(names("--where", f"{shown} and dataset_name == name and step == 'fitted'")) == 4
    unknown = project.ask("list", "--where", "results.peak_mn > 11", code=2).stderr
    assert "did you mean 'results.peak_nm'? there are: mfid, name, dataset_name, state, step, swept, " in unknown
    first, second = (run.run_id for run in project.runs)
    of_the_run = names("--run", first[:8], "--step", "fitted", "--all")
    assert len(of_the_run) == 4
    assert not set(names("--run", second)) - set(names("--all"))
    assert "did you mean 'instrument'?" in project.ask("list", "--where", "instrumen == 1", code=2).stderr
    assert "did you mean 'name'?" in project.ask("list", "--sort", "nam", code=2).stderr
    assert "no run has this ID" in project.ask("list", "--run", "nonesuch", code=2).stderr
    lines = project.ask("list", "--step", "axis", "--csv").stdout.splitlines()
    assert lines[0].startswith("mfid,dataset_name,state,step,swept,pipeline")
    assert len(lines) == 2


def test_files_of_several_datasets_go_into_one_folder_each(project: Any, tmp_path: Any) -> None:
    found = project.ask_json("get", "--step", "fitted", "--file", "*.csv", "-o", tmp_path / "fits")["datasets"]
    one = project.fitted("weak-2.txt")
    (files,) = (fetched["files"] for fetched in found if fetched["mfid"] == one)
    folder = tmp_path / "fits" / f"weak-2.txt-fitted--{one}"
    assert files == [str(folder / "fit.csv")], "the folder is named after the dataset"
    assert len(found) == 4
    assert (folder / "fit.csv").read_text() == "peak,2.5"
    again = project.ask("get", one, "weak-1.txt (fitted)", "-o", tmp_path / "fits").stdout
    assert again.count("already there") == 2
    assert f"{folder / 'curve.txt'}\n" in again
    refused = project.ask("get", one, "--file", "*.tif", "-o", tmp_path / "none", code=2).stderr
    assert "no file matches; there are: curve.txt, fit.csv, fit.png" in refused
    assert not (tmp_path / "none").exists()
    assert "name datasets, or select results" in project.ask("get", "-o", tmp_path, code=2).stderr
    run = project.ask_json("get", "--run", project.runs[0].run_id, "--file", "axis.json", "-o", tmp_path / "run")
    assert [dataset["files"] for dataset in run["datasets"] if dataset["files"]] != []


def test_runs_of_other_machines_are_found_by_their_outputs(project: Any, tmp_path: Any) -> None:
    from crucible_lineage.ask.runs import list_runs
    from crucible_lineage.session import Session
    from crucible_lineage.settings import Settings

    key = (project.data / "crucible" / "api_key").read_text().strip()
    with Session(Settings(project.data)) as local:
        with Session(Settings(tmp_path / "elsewhere", local.client.api_url, key)) as remote:
            second, first = list_runs(remote, ["spectra"])
    assert [second.run_id, first.run_id] == [run.run_id for run in reversed(project.runs)]
    assert (second.state, second.steps, len(second.made), second.engine) == (None, None, 5, "local")


def test_commands_of_the_page_work(project: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runs = {"5436": project.runs[0].run_id[:6], "a01c": project.runs[1].run_id[:6]}
    shown = [line.partition("  #")[0] for line in page.splitlines() if line.startswith("$ crucible-lineage ")]
    shown = shown[: next(at for at, line in enumerate(shown) if " register " in line)]
    assert len(shown) == 11
    for line in shown:
        words = shlex.split(line.removeprefix("$ crucible-lineage ").partition(" > fits.csv")[0])
        assert "error" not in project.ask(*(runs.get(word, word) for word in words)).stdout
    assert (tmp_path / "fits.parquet").is_file()
    assert len(list((tmp_path / "fits").rglob("*.csv"))) == 4
