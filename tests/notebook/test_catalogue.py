"""Queries in Python give the answers of the commands, and files are loaded as values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import crucible_lineage as cl
from crucible_lineage.cli import main
from crucible_lineage.errors import InputError, RunError


def command_json(data: Path, *words: str) -> Any:
    ran = CliRunner().invoke(main, [*words, "--data", str(data), "--json"])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


@pytest.fixture
def catalogue(laboratory: Path, data: Path) -> Any:
    with cl.connect(data, project="lab") as opened:
        yield opened


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, crucible_lineage as cl; assert 'connect' in dir(cl);"
        "heavy = {'pandas', 'numpy', 'httpx', 'pydantic', 'prefect', 'networkx', 'starlette'};"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys();"
        "cl.connect; assert 'prefect' not in sys.modules;"
        "import crucible_lineage.client, httpx; httpx.Client(); assert not {'h2', 'httpx._main'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_pipeline_is_planned_run_and_queried(catalogue: Any, data: Path) -> None:
    planned = catalogue.plan("pipeline.yaml")
    assert [step.state for step in planned.steps] == ["missing", "missing"]
    assert repr(planned) == "<plan of counting: 2 missing>"
    run = catalogue.run("pipeline.yaml")
    assert set(run.outcomes.values()) == {"executed"}
    assert catalogue.plan("pipeline.yaml").is_fresh
    first = run["scaled[first.txt]"]
    assert (first.name, first.state, first.step, first.pipeline) == (
        "first.txt (scaled)",
        "current",
        "scaled",
        "counting",
    )
    assert (first.results, first.params) == ({"total_nm": 18.0, "steps": 3}, {"factor": 3.0})
    assert len(run["scaled"]) == 2
    assert [dataset.mfid for dataset in catalogue.find(step="scaled")] == [
        dataset["mfid"] for dataset in command_json(data, "list", "--step", "scaled")["datasets"]
    ]
    assert [dataset.name for dataset in catalogue.find(sort="-name")][:2] == ["second.txt (scaled)", "second.txt"]
    assert catalogue.dataset("first.txt (scaled)") == catalogue.dataset(first.mfid[:20]) == first
    assert [parent.name for parent in first.parents] == ["first.txt"]
    assert first in set(catalogue.dataset("first.txt").children)
    table = catalogue.table("scaled", where="results.total_nm > 20")
    assert isinstance(table, pd.DataFrame)
    assert list(table["results.total_nm"]) == [30.0]
    assert "scaled" in str(catalogue.why(first.mfid))
    assert len(first.lineage()) == 2
    assert "first.txt (scaled)" in str(first.lineage())
    assert repr(first.lineage()) == f"<lineage of {first.mfid}: 2 datasets and samples>"
    other = catalogue.run("pipeline.yaml", params={"scaled.factor": 4})
    compared = catalogue.diff(first, other["scaled[first.txt]"])
    assert ("total_nm", 18.0, 24.0) in [
        (result.field, result.old, result.new) for result in compared.difference.results
    ]
    assert "total_nm: 18.0 -&gt; 24.0 (+6)" in compared._repr_html_()
    assert "Parameters\n  factor = 3" in catalogue.why(first)._repr_html_()


def test_files_are_available_as_paths_and_values(catalogue: Any, tmp_path: Path) -> None:
    first = catalogue.run("pipeline.yaml")["scaled[first.txt]"]
    assert [file.name for file in first.files] == ["about.json", "scaled.csv"]
    assert list(first.load("scaled.csv")["value"]) == [3.0, 6.0, 9.0]
    assert first.load("about.json") == {"factor": 3.0}
    path = first.path("scaled.csv")
    assert (path.name, path) == ("scaled.csv", first.path("scaled.csv"))
    path.write_text("mine")  # changes only this copy
    with cl.connect(catalogue.session.settings.data) as other:
        assert other.dataset(first.mfid).path("scaled.csv").read_text() != "mine"
    assert catalogue.dataset("first.txt").load() == "1\n2\n3\n"  # the only one
    with pytest.raises(InputError, match=r"name one of its files: about\.json, scaled\.csv"):
        first.load()
    with pytest.raises(InputError, match=r"did you mean 'scaled\.csv'"):
        first.path("scaled.cvs")
    catalogue.close()
    assert not path.exists()


def test_loaders_can_be_added_and_a_missing_one_is_reported(tmp_path: Path) -> None:
    from crucible_lineage.notebook.dataset import load_file

    spectrum = tmp_path / "a.SPC"
    spectrum.write_text("7 8")
    with pytest.raises(InputError, match=r"no loader knows \.spc; register one"):
        load_file(spectrum)
    cl.add_loader(".spc", lambda path: path.read_text().split())
    assert load_file(spectrum) == ["7", "8"]
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n")
    assert list(load_file(tmp_path / "t.tsv").columns) == ["a", "b"]
    import numpy as np

    np.savez(tmp_path / "n.npz", x=np.arange(3))
    assert list(load_file(tmp_path / "n.npz")["x"]) == [0, 1, 2]
    for name in ("t.csv", "t.json", "t.npz", "t.png", "t.h5", "t.txt", "t.xlsx"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00 no")
        with pytest.raises(InputError, match=rf"load {name}: it cannot be read as \{name[1:]}: .*Dataset\.path\(\)"):
            load_file(tmp_path / name)
    with pytest.raises(InputError, match="name an ending with its dot"):
        cl.add_loader("spc", str)


@pytest.mark.parametrize("with_pandas", [True, False])
def test_a_table_without_header_loses_no_row(
    with_pandas: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crucible_lineage.notebook.dataset import load_file

    if not with_pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)

    def rows_of(text: str) -> list[dict[str, Any]]:
        (tmp_path / "t.csv").write_text(text)
        found = load_file(tmp_path / "t.csv")
        return list(found.to_dict("records") if with_pandas else found)

    one, decimal = (12, 1.5) if with_pandas else ("12", "1.5")
    assert rows_of("90\n12\n")[1] == {"column_1": one}
    assert rows_of("1,2\n12,4\n")[1]["column_1"] == one
    assert rows_of("1,5;2,5\n3,5;4,5\n")[0]["column_1"] == decimal
    assert rows_of("wavelength;counts\n1,5;12\n2,5;3\n")[0] == {"wavelength": decimal, "counts": one}
    assert len(rows_of(",0,1\n0,5,6\n")) == 1  # as pandas writes a frame whose columns are numbers


def test_a_failed_run_raises_the_errors(catalogue: Any, laboratory: Path) -> None:
    text = Path("pipeline.yaml").read_text().replace(":scale,", ":fail,").replace(", params: {factor: 3}", "")
    Path("broken.yaml").write_text(text)
    with pytest.raises(RunError, match="the lamp was off"):
        catalogue.run("broken.yaml")


def test_objects_have_html_for_notebooks(catalogue: Any) -> None:
    run = catalogue.run("pipeline.yaml")
    first = run["scaled[first.txt]"]
    shown = first._repr_html_()
    assert "first.txt (scaled)" in shown
    assert "total_nm: 18.0" in shown
    assert "executed" in run._repr_html_()
    assert "fresh" in catalogue.plan("pipeline.yaml")._repr_html_()
    assert "<svg" in first.lineage()._repr_html_()
    assert first.mfid in catalogue.find(where="state == 'current'")._repr_html_()
    client = catalogue.client
    evil = client.datasets.create(
        {"dataset_name": "<script>alert(1)</script>", "project_id": "lab"}, scientific_metadata={"<b>": "<i>"}
    ).dsid
    markup = catalogue.dataset(evil)._repr_html_() + catalogue.find()._repr_html_()
    assert "<script>" not in markup
    assert "<i>" not in markup
    assert "&lt;script&gt;" in markup


def test_without_pandas_a_table_has_rows(catalogue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.run("pipeline.yaml")
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = catalogue.table("scaled")
    assert (len(rows), rows.columns[:2]) == (2, ("mfid", "name"))


def test_arguments_environment_or_profile_select_the_crucible(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laboratory: Path
) -> None:
    with cl.connect(data) as local:
        local.run("pipeline.yaml")
        url, key = local.client.api_url, (data / "crucible" / "api_key").read_text().strip()
        folder = tmp_path / "config" / "nano-crucible"
        folder.mkdir(parents=True)
        (folder / "config.ini").write_text(f'[beamline]\napi_url = "{url}"\napi_key = {key}\n')
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        with cl.connect(tmp_path / "other", profile="beamline") as remote:
            assert len(remote.find(step="scaled")) == 2
        with pytest.raises(InputError, match="did you mean 'beamline'"):
            cl.connect(profile="beamlin")
        monkeypatch.setenv("CRUCIBLE_API_URL", url)
        monkeypatch.setenv("CRUCIBLE_API_KEY", key)
        with cl.connect() as remote:
            assert len(remote.find(step="scaled")) == 2
            assert key not in repr(remote)
