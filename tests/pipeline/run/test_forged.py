"""A dataset that an outsider created with the id of a future result is never mistaken for that result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.client import CrucibleClient
from crucible_lineage.ids import new_mfid
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.marks import KEY, SLOTS_KEY
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run as run_file
from tests.serving import RunningServer, start_server

Honest = dict[str, tuple[str, Mapping[str, Any], dict[str, bytes]]]  # name -> id, metadata, files


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    running = start_server(tmp_path / "service")
    yield running
    running.close()


@pytest.fixture
def admin(server: RunningServer) -> Iterator[CrucibleClient]:
    """An administrator of Crucible."""
    with CrucibleClient(server.url, server.api_key) as client:
        yield client


@pytest.fixture
def mine(server: RunningServer, admin: CrucibleClient, tmp_path: Path) -> Iterator[Session]:
    """A session of the project's lead, who is nobody special at Crucible."""
    made = account(admin, "ada")
    admin.projects.create(project_id="lab", organization="lab", project_lead=made["unique_id"])
    with Session(Settings(tmp_path / "mine", server.url, made["api_key"])) as opened:
        yield opened


@pytest.fixture
def outsider(server: RunningServer, admin: CrucibleClient) -> Iterator[CrucibleClient]:
    """Somebody with an account and no part in the project."""
    with CrucibleClient(server.url, account(admin, "eve")["api_key"]) as client:
        yield client


def account(admin: CrucibleClient, name: str) -> dict[str, Any]:
    made: dict[str, Any] = admin._connection.call(
        "POST", "/service_accounts", "make an account", body={"username": name}
    )
    return made


@pytest.fixture
def honest(lab: Any, session: Session) -> Honest:
    """What the pipeline registers where nobody disturbs it: of inputs and steps the id, metadata and files."""
    ran = run_file(session, lab.pipeline)
    ids = {name: mfids[0] for name, mfids in ran.inputs.items()}
    ids |= {step: outputs["out"] for step, outputs in ran.datasets.items()}
    found: Honest = {}
    for name, mfid in ids.items():
        metadata = session.client.datasets.get(mfid, include_metadata=True).scientific_metadata or {}
        files = {f.filename: session.client.files.download_bytes(f) for f in session.client.files.list(mfid)}
        found[name] = (mfid, metadata, files)
    return found


def run(lab: Any, session: Session, choice: StepChoice = StepChoice()) -> RunResult:
    return run_file(session, lab.pipeline, choice)


def post(
    client: CrucibleClient,
    mfid: str,
    metadata: Mapping[str, Any],
    files: Mapping[str, bytes],
    folder: Path,
    *,
    rewritten: bool = True,
    **fields: Any,
) -> None:
    """A dataset under this id, complete by its own words, with these bytes; `rewritten` if its record lists them."""
    client.datasets.create({"unique_id": mfid, "dataset_name": "mine, all mine", "public": True, **fields})
    folder.mkdir(exist_ok=True)
    document = json.loads(json.dumps(metadata))
    for name, content in files.items():
        (folder / name).write_bytes(content)
        client.files.upload(mfid, folder / name)
        if rewritten:
            listed = next(entry for entry in document[KEY]["generated"] if entry["name"] == name)
            scanned = scan_file(folder / name)
            listed |= {"sha256": scanned.sha256, "size": scanned.size}
    client.metadata.merge(mfid, document)


@pytest.mark.parametrize(("project", "bytes_of"), [(None, "theirs"), ("evil", "ours")])
def test_a_step_whose_id_an_outsider_has_taken_is_refused_and_works_with_a_salt(
    lab: Any,
    mine: Session,
    admin: CrucibleClient,
    outsider: CrucibleClient,
    honest: Honest,
    tmp_path: Path,
    project: str | None,
    bytes_of: str,
) -> None:
    mfid, metadata, files = honest["scaled"]
    fields = {}
    if project:
        me = outsider.account.whoami().user_unique_id
        admin.projects.create(project_id=project, organization="lab", project_lead=me)
        fields = {"project_id": project}
    forged = {name: content + b"\n0" * (bytes_of == "theirs") for name, content in files.items()}
    post(outsider, mfid, metadata, forged, tmp_path / "forged", **fields)
    outsider.datasets.add_keyword(mfid, "pipeline:counting")
    ran = run(lab, mine, StepChoice(patience_s=2))
    assert not ran.ok
    assert ran.outcomes["scaled"] == "failed"
    assert "total" not in ran.datasets, "what follows was made from ours and is not registered"
    error = ran.errors["scaled"]
    assert mfid in error
    assert "eve" in error, "its owner"
    assert (f"project {project}" if project else "no project") in error
    assert "deleted" in error
    assert "salt" in error, "what to do"
    assert [
        dataset for dataset in mine.client.datasets.list(project_id="lab") if dataset.dataset_name == "scaled"
    ] == []
    assert len(mine.client.datasets.get(mfid, include_links=True).links or ()) == 0
    salted = lab.pipeline.read_text().replace("params: {factor: 3}", "params: {factor: 3}\n    salt: not this one")
    lab.pipeline.write_text(salted)
    again = run(lab, mine)
    assert again.ok, again.errors
    assert again.datasets["scaled"]["out"] != mfid
    assert again.datasets["total"]["out"] == honest["total"][0], "what follows has the same bytes and so the same id"
    assert run(lab, mine).executed == []
    other = Session(Settings(tmp_path / "other", mine.settings.api_url, mine.settings.api_key))
    with other:
        assert run(lab, other).executed == []


def test_an_id_taken_by_a_private_dataset_is_reported_at_once(
    lab: Any, mine: Session, outsider: CrucibleClient, honest: Honest
) -> None:
    mfid = honest["total"][0]
    outsider.datasets.create({"unique_id": mfid, "dataset_name": "squatted"})
    ran = run(lab, mine)
    assert ran.outcomes == {"scaled": "executed", "total": "failed"}
    assert f"the id {mfid}" in ran.errors["total"]
    assert "private" in ran.errors["total"]
    assert "salt" in ran.errors["total"]
    assert not mine.outbox.all(), "nothing is tried again for ever"


def test_the_same_command_works_once_the_forged_dataset_is_deleted(
    lab: Any, mine: Session, admin: CrucibleClient, outsider: CrucibleClient, honest: Honest, tmp_path: Path
) -> None:
    mfid, metadata, files = honest["total"]
    post(outsider, mfid, metadata, files, tmp_path / "forged")
    assert run(lab, mine).outcomes["total"] == "failed"
    outsider.datasets.delete(mfid)
    admin.deletions.delete(mfid)
    ran = run(lab, mine)
    assert ran.ok, ran.errors
    assert ran.datasets["total"]["out"] == mfid


@pytest.mark.parametrize("squatted", ["public", "private"])
def test_measured_files_whose_id_an_outsider_has_taken_are_refused(
    lab: Any, mine: Session, outsider: CrucibleClient, honest: Honest, tmp_path: Path, squatted: str
) -> None:
    mfid, metadata, files = honest["first"]
    if squatted == "public":
        post(outsider, mfid, metadata, files, tmp_path / "forged")
        ran = run(lab, mine)
        assert ran.outcomes == {"scaled": "failed", "total": "failed"}
        error = ran.errors["scaled"]
    else:
        outsider.datasets.create({"unique_id": mfid, "dataset_name": "squatted"})
        with pytest.raises(Exception, match="salt") as caught:
            run(lab, mine)
        error = str(caught.value)
    assert mfid in error
    assert "salt" in error
    lab.pipeline.write_text(lab.pipeline.read_text().replace('12:00:00Z"}', '12:00:00Z", salt: x}'))
    assert run(lab, mine).ok


def test_slots_and_successors_claimed_by_an_outsider_change_nothing(
    lab: Any, mine: Session, outsider: CrucibleClient, tmp_path: Path, honest: Honest
) -> None:
    ran = run(lab, mine)
    mfid = ran.datasets["total"]["out"]
    found = mine.client.datasets.update(mfid, public=True)
    true = mine.client.datasets.get(mfid, include_metadata=True)
    metadata = json.loads(json.dumps(true.scientific_metadata))
    (slot,) = metadata[SLOTS_KEY]
    metadata[SLOTS_KEY][slot]["since"] = "2099-01-01T00:00:00+00:00"
    metadata[KEY]["supersedes"] = mfid
    forged = new_mfid()
    post(outsider, forged, metadata, honest["total"][2], tmp_path / "forged")
    outsider.datasets.link_parent_child(mfid, forged, relationship_type="is_derived_from")
    graph = fetch_lineage(mine, mfid)
    assert forged in graph.nodes, "it is shown where it is linked"
    assert graph.nodes[mfid].state == "current"
    (entry,) = (standing for standing in list_datasets(mine, "lab").entries if standing.mfid == mfid)
    assert entry.state == "current"
    assert run(lab, mine).executed == []
    assert found.unique_id == mfid


def test_the_plan_refuses_a_dataset_whose_files_are_not_those_of_its_record(
    lab: Any, mine: Session, tmp_path: Path, honest: Honest
) -> None:
    first = run(lab, mine)
    mfid = first.datasets["scaled"]["out"]
    (file,) = (f for f in mine.client.files.list(mfid) if f.filename == "scaled.txt")
    (tmp_path / "scaled.txt").write_text("7\n8\n9")
    mine.client.files.delete(file.mfid)
    mine.client.files.upload(mfid, tmp_path / "scaled.txt")
    steps = {step.name: step for step in make_plan(bind_file(lab.pipeline, mine.store), mine).steps}
    assert steps["scaled"].state == "blocked", "here too, where it was made"
    with Session(Settings(tmp_path / "other", mine.settings.api_url, mine.settings.api_key)) as other:
        steps = {step.name: step for step in make_plan(bind_file(lab.pipeline, other.store), other).steps}
        assert steps["scaled"].state == "blocked"
        assert "scaled.txt has SHA-256" in steps["scaled"].causes[0]
        assert "--force" in steps["scaled"].causes[0]
        ran = run(lab, other, StepChoice(patience_s=1))
        assert ran.outcomes == {"scaled": "failed", "total": "failed"}
        again = run(lab, other, StepChoice(forced=("scaled",), patience_s=1))
        assert again.ok, again.errors
        assert again.datasets["scaled"]["out"] != mfid
    steps = {step.name: step for step in make_plan(bind_file(lab.pipeline, mine.store), mine).steps}
    assert steps["scaled"].state == "fresh", "the attempt beside it"
