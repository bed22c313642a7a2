"""Outcomes of making results again are stated, counted by people and machines, and verified without this package."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.ask.columns import as_json
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.view import show_dataset
from crucible_lineage.cli import main
from crucible_lineage.client import CrucibleClient
from crucible_lineage.remake.driver import GOOD, Options
from crucible_lineage.remake.receipts import PREDICATE, state_receipts
from crucible_lineage.remake.reproduce import reproduce_datasets
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.consent import Consent
from crucible_lineage.statements.statements import SAME
from tests.runs import run
from tests.serving import start_server

pytestmark = pytest.mark.usefixtures("keeping")
HERE = Options(here=True)
VALIDATORS = Path(__file__).parents[2] / ".venv" / "validators" / "bin"


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Session]]:
    """Provide three contributors to one project, each with a separate machine."""
    with start_server(tmp_path / "service") as server, CrucibleClient(server.url, server.api_key) as admin:
        admin.projects.create(project_id="lab", organization="lab", project_lead="local")
        ask = admin._connection.call
        opened = []
        for name in ("ada", "bob", "eve"):
            made: Any = ask("POST", "/service_accounts", "make an account", body={"username": name})
            ask("POST", f"/projects/lab/users/{name}", "add a member", params={"role": "contributor"})
            opened.append(Session(Settings(tmp_path / name, server.url, str(made["api_key"]))))
        yield opened
        for session in opened:
            session.close()


def made(session: Session, lab: Any) -> str:
    done = run(session, lab.pipeline)
    return str(done.datasets["total"]["out"])


def again(session: Session, mfid: str) -> None:
    agreed = Consent(ask=lambda _: True)
    found = reproduce_datasets(session, [mfid], HERE, lambda _: None, consent=agreed)
    stated, faults = state_receipts(session, found)
    assert (len(stated), faults) == (1, [])


def test_who_made_it_again_where_is_counted_and_shown(lab: Any, members: list[Session]) -> None:
    ada, bob, eve = members
    mfid = made(ada, lab)
    again(ada, mfid)
    assert show_dataset(ada, mfid).entry.remade.summary() == "", "the machine that made it proves nothing"
    for session in (bob, bob, eve):
        again(session, mfid)
    shown = show_dataset(ada, mfid).entry.remade
    assert shown.summary() == f"remade 3 times by 2 people on 1 architecture, last {shown.last}"
    (entry,) = [standing for standing in list_datasets(bob, "lab").entries if standing.mfid == mfid]
    assert (entry.remade, as_json([entry])[0]["remade"]["times"]) == (shown, 3)
    assert entry.state == "current"
    where = (
        "--data",
        str(ada.settings.data),
        "--url",
        str(ada.settings.api_url),
        "--api-key",
        str(ada.settings.api_key),
    )
    printed = CliRunner().invoke(main, ["show", mfid, *where]).output
    assert shown.summary() in printed
    assert printed.count("remade") == 1


def test_receipts_are_in_toto_statements(lab: Any, session: Session) -> None:
    mfid = made(session, lab)
    found = reproduce_datasets(session, [mfid], HERE, lambda _: None)
    (stated,), _ = state_receipts(session, found)
    receipt: Any = stated.statement.body["receipt"]
    assert (receipt["_type"], receipt["predicateType"]) == ("https://in-toto.io/Statement/v1", PREDICATE)
    recorded = session.client.metadata.get(mfid)["crucible_lineage"]["generated"]
    assert {(one["name"], one["digest"]["sha256"]) for one in receipt["subject"]} == {
        (f"{mfid}/{file['name']}", file["sha256"]) for file in recorded
    }
    predicate = receipt["predicate"]
    assert (predicate["verdict"], predicate["comparedWith"]) == ("identical", "the record at Crucible")


READ_BY_OTHERS = """
import sys
from google.protobuf import json_format
from in_toto_attestation.v1 import statement, statement_pb2

read = json_format.Parse(sys.stdin.read(), statement_pb2.Statement())
statement.Statement.copy_from_pb(read).validate()
print(*(f"{one.name} {one.digest['sha256']}" for one in read.subject), sep="\\n")
"""


def test_a_library_for_in_toto_reads_and_validates_receipts(lab: Any, session: Session) -> None:
    mfid = made(session, lab)
    (stated,), _ = state_receipts(session, reproduce_datasets(session, [mfid], HERE, lambda _: None))
    receipt = json.dumps(stated.statement.body["receipt"])

    def read(text: str) -> subprocess.CompletedProcess[str]:
        command = [VALIDATORS / "python", "-I", "-c", READ_BY_OTHERS]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    by_others = read(receipt)
    assert by_others.returncode == 0, by_others.stderr
    recorded = session.client.metadata.get(mfid)["crucible_lineage"]["generated"]
    assert by_others.stdout.splitlines() == [f"{mfid}/{file['name']} {file['sha256']}" for file in recorded]
    assert read(receipt.replace("in-toto.io/Statement/v1", "in-toto.io/Statement/v7")).returncode != 0


def test_the_command_states_what_came_of_it(
    lab: Any, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mfid = made(session, lab)
    shutil.rmtree(lab.folder)
    data = ("--data", str(session.settings.data))
    kept = tmp_path / "kept"
    monkeypatch.chdir(tmp_path)  # a relative folder, although steps run in other ones
    ran = CliRunner().invoke(main, ["reproduce", mfid, "--here", "--keep", kept.name, *data])
    assert ran.exit_code == 0, ran.output
    assert "1 of 1 result reproduced" in ran.output
    assert list(kept.rglob("total.txt"))
    statements = json.loads(CliRunner().invoke(main, ["statements", mfid, "--json", *data]).stdout)
    assert [(statement["verb"], statement["body"]["own"]) for statement in statements["statements"]] == [
        ("remake", True)
    ]
    ran = CliRunner().invoke(
        main, ["reproduce", "--project", "lab", "--sample", "5", "--here", "--no-receipt", "--json", *data]
    )
    assert len(json.loads(ran.stdout)["results"]) == 2
    statements = json.loads(CliRunner().invoke(main, ["statements", mfid, "--json", *data]).stdout)
    assert len(statements["statements"]) == 1


def test_verdicts_that_count_are_those_of_the_program_in_bundles() -> None:
    assert SAME == GOOD


def test_a_notebook_says_it_in_one_line(lab: Any, members: list[Session]) -> None:
    from crucible_lineage.notebook.catalogue import Catalogue

    ada, bob, _ = members
    mfid = made(ada, lab)
    again(bob, mfid)
    dataset = Catalogue(ada, "lab").dataset(mfid)
    assert dataset._repr_html_().count("remade 1 time by 1 person on 1 architecture") == 1
