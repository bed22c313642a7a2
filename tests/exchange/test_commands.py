"""`push --to` and `pull` as they are typed: options, exit codes, JSON, and what is refused before anything is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import HOLD, About
from crucible_lineage.statements.stating import certificates_as_of, certify, state

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/commands.schema.json").read_text(encoding="utf-8"))


def printed(stdout: str, command: str) -> Any:
    value = json.loads(stdout)
    Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{command}"}).validate(value)
    return value


@pytest.fixture
def key_file(service: Any, tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{service.api_key}\n")
    return path


def test_push_tells_what_it_sent_and_the_second_that_all_is_there(
    offline: Session, service: Any, command: Any, key_file: Path, tmp_path: Path
) -> None:
    to = ("push", "--data", offline.settings.data, "--project", "lab", "--to", service.url, "--api-key-file", key_file)
    tried = command(*to, "--dry-run")
    assert (tried.returncode, "0 already there, 4 would be sent" in tried.stdout) == (0, True), tried.stderr
    assert service.state() == {}
    first = command(*to, "--json")
    assert first.returncode == 0, first.stderr
    assert [len(printed(first.stdout, "push")[key]) for key in ("sent", "to_send", "conflicts", "left")] == [4, 0, 0, 0]
    second = command(*to)
    assert (second.returncode, "nothing was sent: everything is there" in second.stdout) == (0, True), second.stderr
    with service.session() as session:
        (scaled,) = session.client.datasets.list(data_type="scaled")
        session.client.datasets.update(scaled.unique_id, dataset_name="renamed")
    third = command(*to)
    assert third.returncode == 1
    assert f"{scaled.unique_id}  first (scaled): dataset_name is 'renamed' at the target" in third.stderr
    assert "nothing was sent\n" in third.stdout
    assert service.api_key not in third.stdout + third.stderr
    fourth = command(*to, "--json")
    assert [conflict["mfid"] for conflict in printed(fourth.stdout, "push")["conflicts"]] == [scaled.unique_id]


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("--to", "http://127.0.0.1:9", "--project", "lab"), {}, "there is no embedded Crucible in"),
        (("--to", "http://127.0.0.1:9", "--project", "lab", "--api-key", "x"), {}, "--api-key is the key for --url"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    command: Any, tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    ran = command("push", "--data", tmp_path / "nowhere", *arguments, **environment)
    assert (ran.returncode, told in ran.stderr) == (2, True), ran.stderr
    assert not (tmp_path / "nowhere").exists()


def test_a_key_for_another_address_is_not_sent_there(offline: Session, command: Any) -> None:
    to = ("push", "--data", offline.settings.data, "--project", "lab", "--to", "http://127.0.0.1:9")
    ran = command(*to, CRUCIBLE_API_URL="http://127.0.0.1:8", CRUCIBLE_API_KEY="k" * 30)
    assert (ran.returncode, "the key in CRUCIBLE_API_KEY is for http://127.0.0.1:8" in ran.stderr) == (2, True)
    assert "there is no API key for http://127.0.0.1:9" in command(*to).stderr


def test_pull_brings_datasets_with_their_files_and_what_is_made_of_them_goes_back(
    rich: Session, service: Any, push: Any, command: Any, key_file: Path, tmp_path: Path
) -> None:
    push(service, rich)
    (scaled,) = rich.client.datasets.list(project_id="lab", data_type="scaled")
    (made,) = rich.client.datasets.list(project_id="lab", dataset_name="by hand")
    online = {"CRUCIBLE_API_URL": service.url, "CRUCIBLE_API_KEY": service.api_key}
    field = tmp_path / "field"
    pulled = command("pull", scaled.unique_id, made.unique_id, "--data", field, "--json", **online)
    assert pulled.returncode == 0, pulled.stderr
    assert {one["kind"] for one in printed(pulled.stdout, "pull")["sent"]} == {"dataset", "sample"}
    again = command("pull", scaled.unique_id, made.unique_id, "--data", field, **online)
    assert "nothing was brought: everything is there" in again.stdout, again.stderr
    with Session(Settings(field)) as session:
        (file,) = [file for file in session.client.files.list(scaled.unique_id) if file.filename == "scaled.txt"]
        assert session.client.files.download_bytes(file) == b"3.0\n6.0\n9.0"
        assert session.client.ingestions.list() == [], "what was read there is here as metadata"
        session.client.datasets.add_keyword(made.unique_id, "from the field")
    before = service.state()
    to = ("push", "--data", field, "--project", "lab", "--to", service.url, "--api-key-file", key_file)
    assert "1 sent" in command(*to).stdout
    after = service.state()
    assert after.pop(made.unique_id)["keywords"] == sorted([*before.pop(made.unique_id)["keywords"], "from the field"])
    assert after == before


@pytest.mark.usefixtures("keeping")
def test_what_is_pulled_can_be_made_again_offline(
    offline: Session, service: Any, push: Any, command: Any, tmp_path: Path
) -> None:
    push(service, offline)
    (scaled,) = offline.client.datasets.list(project_id="lab", data_type="scaled")
    (first,) = offline.client.datasets.list(project_id="lab", dataset_name="first")
    field = tmp_path / "field"
    online = {"CRUCIBLE_API_URL": service.url, "CRUCIBLE_API_KEY": service.api_key}
    assert command("pull", scaled.unique_id, first.unique_id, "--data", field, **online).returncode == 0
    made = command("reproduce", scaled.unique_id, "--here", "--data", field)
    assert (made.returncode, "code of others" in made.stderr) == (2, True), (
        "another machine's local user is another one"
    )
    author = str(offline.agent["unique_id"])
    made = command("reproduce", scaled.unique_id, "--here", "--data", field, "--run-code-of", author)
    assert "1 of 1 result reproduced" in made.stdout, made.stdout + made.stderr


def test_pull_for_a_pipeline_brings_the_certificates_by_which_calibrations_are_chosen(
    service: Any, command: Any, tmp_path: Path
) -> None:
    with service.session() as session:

        def register(name: str, measurement: str) -> str:
            path = tmp_path / f"{name}.txt"
            path.write_text(name)
            fields = {"timestamp": "2024-05-02T10:00:00Z", "instrument_name": "Raman 1", "measurement": measurement}
            created = session.client.datasets.create({"project_id": "lab", "dataset_name": name, **fields})
            session.client.files.upload(created.dsid, path)
            return str(created.dsid)

        register("scan", "scan")
        first, second = register("first", "axis"), register("second", "axis")
        certify(session, first, {"instrument": "Raman 1"}, "2024-01-01", why="fits")
        certify(session, second, {"instrument": "Raman 1"}, "2024-05-01", why="newer", replaced=True)
        certify(session, first, {"instrument": "Raman 1"}, "2024-06-01", why="the old one again", replaced=True)
    pipeline = tmp_path / "scans.yaml"
    pipeline.write_text(
        "pipeline: scans\nproject: lab\n"
        "inputs: {scan: {select: {measurement: scan}, each: true}, axis: {calibration: axis, for: scan}}\n"
        "steps: {kept: {run: [sh, -c, 'cat {inputs.scan} {inputs.axis} > {out}/kept.txt'],"
        " inputs: {scan: scan, axis: axis}}}\n"
    )
    online = {"CRUCIBLE_API_URL": service.url, "CRUCIBLE_API_KEY": service.api_key}
    field = tmp_path / "field"
    assert command("pull", "--for", pipeline, "--data", field, **online).returncode == 0
    with Session(Settings(field)) as session:
        certificate, _ = certificates_as_of(session, "lab")
        assert (certificate.dataset, f"{certificate.spans[0][1]:%Y-%m-%d}") == (second, "2024-06-01"), (
            "which another one ends"
        )
        (step,) = make_plan(bind_file(pipeline, session.store), session).steps
        assert (step.state, step.choices["axis"][0]["name"]) == ("missing", "second")
        own = session.agent
    with service.session() as session:
        session._agent = own  # as a program of somebody else may write it
        forged = state(session, "lab", HOLD, About(project="lab"), why="forged").statement.mfid
    pulled = command("pull", forged, "--data", field, **online)
    assert (pulled.returncode, "nobody vouches for this statement" in pulled.stdout + pulled.stderr) == (1, True), (
        pulled
    )


def test_pull_of_what_is_not_there_and_without_a_service_is_told(service: Any, command: Any, tmp_path: Path) -> None:
    field = tmp_path / "field"
    missing = "0rztm2jg0201b8b6d0znq6915g"
    ran = command("pull", missing, "--data", field, CRUCIBLE_API_URL=service.url, CRUCIBLE_API_KEY=service.api_key)
    assert ran.returncode == 2, ran.stderr
    assert f"there is no dataset {missing} that this key may read" in ran.stderr
    assert "no service to copy from" in command("pull", missing, "--data", field).stderr
    assert "name what to copy" in command("pull", "--data", field).stderr
    assert "is not an MFID" in command("pull", "abc", "--data", field).stderr
