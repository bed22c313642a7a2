"""Each field of a dataset that Crucible's page lets people set: at every door it works, or is refused in a sentence."""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.refs import FIELDS
from crucible_lineage.session import Session
from tests.page import page_data

WORKS = ""
AT_CRUCIBLE, BY_CRUCIBLE = "changed at Crucible itself", "Crucible sets it"
# A value of each field, a corrected one, and what is said where it is declared, corrected, selected and listed by.
TABLE: dict[str, tuple[object, object, str, str, str, str]] = {
    "dataset_name": ("scan", "scan one", WORKS, WORKS, WORKS, WORKS),
    "measurement": ("SEM", "TEM", WORKS, WORKS, WORKS, WORKS),
    "data_type": ("image", "picture", WORKS, WORKS, WORKS, WORKS),
    "data_format": ("tif", "tiff", "Crucible reads it from the files", WORKS, WORKS, WORKS),
    "session_name": ("monday", "tuesday", WORKS, WORKS, WORKS, WORKS),
    "instrument_name": ("Titan", "Zeiss", WORKS, WORKS, WORKS, WORKS),
    "instrument_id": ("titan-1", "zeiss-2", WORKS, WORKS, WORKS, "no column 'instrument_id'"),
    "timestamp": ("2024-05-01T12:00:00+00:00", "2024-05-02T12:00:00+00:00", WORKS, WORKS, WORKS, WORKS),
    "public": (True, False, WORKS, AT_CRUCIBLE, WORKS, "no column 'public'"),
    "owner_orcid": (None, "0000-0002-1825-0097", WORKS, AT_CRUCIBLE, WORKS, "no column 'owner_orcid'"),
    "project_id": ("lab", "elsewhere", AT_CRUCIBLE, AT_CRUCIBLE, "of the pipeline's project", "'project'?"),
    "size": (7, 8, BY_CRUCIBLE, BY_CRUCIBLE, WORKS, WORKS),
}
PIPELINE = """
pipeline: p
project: lab
inputs: {{x: {input}}}
steps: {{s: {{run: "cp {{inputs.x}} {{out}}/a", inputs: {{x: x}}}}}}
"""


@pytest.fixture
def cl(session: Session) -> Any:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments), "--data", str(session.settings.data)])

    return invoke


@pytest.fixture
def scan(session: Session, tmp_path: Path) -> str:
    """A dataset with a value of each field."""
    client = session.client
    session.ensure_project("lab")
    for name, slug in (("Titan", "titan-1"), ("Zeiss", "zeiss-2")):
        client.instruments.create(instrument_name=name, instrument_id=slug, location="here")
    mfid = client.datasets.create({name: row[0] for name, row in TABLE.items() if row[0] is not None}).dsid
    (tmp_path / "scan.tif").write_text("1 2 3 4")
    client.files.upload(mfid, tmp_path / "scan.tif")
    return mfid


def test_no_other_list_of_fields_stands_in_the_code() -> None:
    for path in (*Path("crucible_lineage").rglob("*.py"), *Path("tasks").rglob("*.py")):
        is_home = path.name in ("refs.py", "filters.py") or path.parts[1] == "server"  # filters are the service's
        for found in ast.walk(ast.parse("" if is_home else path.read_text(encoding="utf-8"))):
            named = {name.value for name in getattr(found, "elts", ()) if isinstance(name, ast.Constant)}
            assert len(named & FIELDS.keys() - {"instrument_mfid"}) < 3, (path, found.lineno)


def says(ran: Result, expected: str, what: str) -> None:
    """Require success, or a refusal with these words."""
    assert (ran.exit_code == 0) is (expected == WORKS), (what, ran.output)
    assert expected in ran.output, (what, ran.output)


def test_each_settable_field_works_or_is_refused_at_each_door(
    session: Session, scan: str, cl: Any, tmp_path: Path
) -> None:
    record = session.client.datasets.get(scan).model_dump()
    shown, listed = json.loads(cl("show", scan, "--json").stdout), json.loads(cl("list", "--json").stdout)["datasets"]
    assert cl("lineage", scan, "-o", tmp_path / "it.zip").exit_code == 0
    with zipfile.ZipFile(tmp_path / "it.zip") as archive:
        exported = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith(f"{scan}.json"))))
    assert cl("lineage", scan, "-o", tmp_path / "it.html").exit_code == 0
    panel = page_data((tmp_path / "it.html").read_text())["details"][0]["record"]
    for name, (value, _, declared, _, selected, by_column) in TABLE.items():
        value = record[name] if value is None else value
        label = FIELDS[name][0]
        assert shown[name] == exported[name] == value, name
        assert name in ("dataset_name", "size") or panel[label] == value, name
        assert by_column or value in listed[0].values(), name
        path = tmp_path / f"{name}.yaml"
        path.write_text(PIPELINE.format(input=json.dumps({"file": "scan.tif", name: value})))
        says(cl("check", path), declared, f"declare {name}")
        says(cl("list", "--where", f"{name} == {value!r}", "--project", "lab"), by_column, f"list by {name}")
        path.write_text(PIPELINE.format(input=json.dumps({"select": {name: value}})))
        says(cl("plan", path), selected, f"select {name}")
    for name, (_, other, _, corrected, _, _) in TABLE.items():
        says(cl("set", scan, f"{name}={other}"), corrected, f"set {name}")
        assert corrected or session.client.datasets.get(scan)[name] == other, name
