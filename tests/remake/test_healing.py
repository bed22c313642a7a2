"""Bytes that Crucible has lost are made again from kept sources, and accepted only with the recorded hashes."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.files.fetch import cached_file
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration.read import read
from crucible_lineage.remake.driver import DIFFERS, IDENTICAL, Options
from crucible_lineage.remake.evicting import evict, plan_eviction
from crucible_lineage.remake.healing import ASIDE, remade_file
from crucible_lineage.remake.receipts import state_receipts
from crucible_lineage.remake.reproduce import reproduce_datasets
from crucible_lineage.session import Session

pytestmark = pytest.mark.usefixtures("keeping")


def run(lab: Any, session: Session) -> RunResult:
    bound = bind_file(lab.pipeline, session.store)
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)


def lose(session: Session, mfid: str) -> dict[str, bytes]:
    """Remove the stored bytes of a dataset's files and return them."""
    lost = {}
    for file in session.client.files.list(mfid):
        digest = str(file.sha256_hash)
        path = session.settings.data / "crucible" / "contents" / digest[:2] / digest[2:]
        lost[file.filename] = path.read_bytes()
        path.unlink()
        session.cache.evict(digest)
    return lost


def ask(session: Session, *arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--data", str(session.settings.data)])


def test_get_makes_again_what_is_lost_with_what_that_is_made_from(lab: Any, session: Session, tmp_path: Path) -> None:
    done = run(lab, session)
    scaled, total = done.datasets["scaled"]["out"], done.datasets["total"]["out"]
    lost = {**lose(session, scaled), **lose(session, total)}
    shutil.rmtree(lab.folder)
    got = ask(session, "get", total, "-o", tmp_path / "got")
    assert got.exit_code == 0, got.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == {
        name: lost[name] for name in ("total.txt", "note.txt")
    }


def test_repair_sends_what_was_made_again(lab: Any, session: Session) -> None:
    done = run(lab, session)
    scaled = done.datasets["scaled"]["out"]
    lose(session, scaled)
    (lab.folder / f"{lab.module}.py").write_text("raise RuntimeError('other code by now')\n")
    repaired = ask(session, "verify", "--project", "lab", "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert f"repaired scaled.txt of {scaled}, from rerunning its step" in repaired.output
    assert ask(session, "verify", "--project", "lab", "--bytes").exit_code == 0


def test_a_step_gets_what_was_lost(lab: Any, session: Session) -> None:
    mfid = run(lab, session).datasets["scaled"]["out"]
    lost = lose(session, mfid)
    found = read(session.client, mfid)
    assert found is not None
    assert found.ref is not None
    file = next(file for file in found.ref.files if file.name == "scaled.txt")
    session.remake = remade_file
    assert (
        cached_file(found.ref, FileRef(file.name, file.sha256, file.size), session).read_bytes() == lost["scaled.txt"]
    )


def test_other_bytes_are_never_taken_and_kept_aside(lab: Any, session: Session, tmp_path: Path) -> None:
    lab.file(
        f"{lab.module}.py",
        "import random\nfrom pathlib import Path\n\n\ndef draw(counts: Path, *, out: Path):\n"
        "    (out / 'x.txt').write_text(repr(random.random()))\n",
    )
    lab.declare(
        f"pipeline: odd\nproject: lab\ninputs:\n  first: {{file: first.txt}}\nsteps:\n"
        f"  draw: {{uses: {lab.module}:draw, inputs: {{counts: first}}}}\n"
    )
    mfid = run(lab, session).datasets["draw"]["out"]
    lost = lose(session, mfid)
    # The recorded environment cannot be built without an index: the present one decides.
    got = ask(session, "get", mfid, "-o", tmp_path / "got")
    assert got.exit_code == 1
    assert f"dataset {mfid} was made again with other bytes" in got.output
    assert not list((tmp_path / "got").glob("*.txt"))
    (aside,) = (session.settings.data / ASIDE / mfid).rglob("made/out/x.txt")
    assert aside.read_bytes() != lost["x.txt"]
    assert json.loads(ask(session, "verify", mfid, "--bytes", "--json").stdout)["damaged"]
    assert isinstance(found := read(session.client, mfid), object)
    assert isinstance(found and found.ref, DatasetRef)


def sha256_of(session: Session, mfid: str) -> str:
    (file,) = (file for file in session.client.files.list(mfid) if file.filename == "scaled.txt")
    return str(file.sha256_hash)


def size_of(session: Session, mfid: str) -> int:
    paths = (
        session.settings.data / "crucible" / "contents" / str(file.sha256_hash)[:2] / str(file.sha256_hash)[2:]
        for file in session.client.files.list(mfid)
    )
    return sum(path.stat().st_size for path in paths if path.exists())


def test_only_what_was_made_again_is_let_go_and_comes_back(lab: Any, session: Session, tmp_path: Path) -> None:
    lab.declare(lab.pipeline.read_text().replace("inputs: {left", "keep: forever\n    inputs: {left"))
    done = run(lab, session)
    scaled, total = done.datasets["scaled"]["out"], done.datasets["total"]["out"]
    before = size_of(session, scaled)
    nothing = json.loads(ask(session, "evict", "--to-free", "1GB", "--json").stdout)
    assert (nothing["evicted"], nothing["stays"]["not reproduced elsewhere yet (reproduce; or --trust-own)"] > 0) == (
        [],
        True,
    )
    for mfid in (scaled, total):
        assert ask(session, "reproduce", mfid, "--here").exit_code == 0
    assert json.loads(ask(session, "evict", "--to-free", "1GB", "--json").stdout)["evicted"] == [], "its own receipts"
    dry = ask(session, "evict", "--to-free", "1B", "--trust-own", "--dry-run")
    assert (dry.exit_code, size_of(session, scaled)) == (0, before), dry.output
    went = ask(session, "evict", "--to-free", "1GB", "--trust-own", "--json")
    eviction = json.loads(went.stdout)
    assert (went.exit_code, [one["mfid"] for one in eviction["evicted"]]) == (1, [scaled])
    assert {"keep: forever", "measured, or made manually"} <= eviction["stays"].keys()
    assert size_of(session, scaled) < before
    verified = json.loads(ask(session, "verify", "--project", "lab", "--bytes", "--json").stdout)
    assert (verified["ok"], [one["class"] for one in verified["findings"]]) == (True, ["file-evicted"])
    shutil.rmtree(lab.folder)
    assert ask(session, "get", scaled, "-o", tmp_path / "got").exit_code == 0
    assert (tmp_path / "got" / "scaled.txt").read_text() == "3.0\n6.0\n9.0"
    assert session.mirror.lost(scaled) == (), "no run sends it again"
    session.cache.evict(sha256_of(session, scaled))
    bundled = ask(session, "bundle", scaled, "-o", tmp_path / "it.zip")
    assert bundled.exit_code == 0, bundled.output
    with zipfile.ZipFile(tmp_path / "it.zip") as archive:
        assert archive.read(f"data/{scaled}/scaled.txt") == b"3.0\n6.0\n9.0"
    again = json.loads(ask(session, "evict", "--to-free", "1GB", "--trust-own", "--json").stdout)
    assert again["evicted"] == []


def test_bytes_that_others_share_or_rest_on_stay(lab: Any, session: Session) -> None:
    done = run(lab, session)
    scaled, total = done.datasets["scaled"]["out"], done.datasets["total"]["out"]
    for mfid in (scaled, total):
        assert ask(session, "reproduce", mfid, "--here").exit_code == 0
    (lab.folder / "copied.txt").write_text("3.0\n6.0\n9.0")
    registered = ask(session, "register", lab.folder / "copied.txt", "--project", "lab")
    assert registered.exit_code == 0, registered.output
    (second,) = done.inputs["second"]
    lose(session, second)
    eviction = json.loads(ask(session, "evict", "--to-free", "1GB", "--trust-own", "--json").stdout)
    assert eviction["evicted"] == []
    assert "the same bytes as of something that stays" in eviction["stays"]
    assert f"made from {second}, whose bytes are not here" in eviction["stays"]


def test_what_others_registered_has_to_be_there_for_what_was_made_of_it(lab: Any, session: Session) -> None:
    session.ensure_project("lab")
    theirs = session.client.datasets.create({"dataset_name": "theirs", "project_id": "lab"}).dsid
    session.client.files.upload(theirs, lab.folder / "first.txt")
    lab.declare(lab.pipeline.read_text().replace("{file: first.txt, timestamp", "{dataset: " + theirs + "} #"))
    scaled = run(lab, session).datasets["scaled"]["out"]
    assert ask(session, "reproduce", scaled, "--here").exit_code == 0

    def eviction(*more: str) -> Any:
        return json.loads(ask(session, "evict", "--to-free", "1GB", "--trust-own", "--json", *more).stdout)

    assert [one["mfid"] for one in eviction("--dry-run")["evicted"]] == [scaled]
    lose(session, theirs)
    assert eviction()["evicted"] == []
    assert f"made from {theirs}, whose bytes are not here" in eviction()["stays"]


def test_what_was_once_the_same_by_chance_is_not_let_go(
    lab: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = itertools.count()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2026, 1, 1, 0, 0, next(moments), tzinfo=tz)

    for module in ("stating", "remake.receipts"):  # of one second, equal receipts are one
        monkeypatch.setattr(f"crucible_lineage.{module}.datetime", Clock)
    done = run(lab, session)
    scaled = done.datasets["scaled"]["out"]
    outcomes = reproduce_datasets(session, [scaled], Options(here=True), lambda _: None)

    def going() -> list[str]:
        eviction = json.loads(ask(session, "evict", "--to-free", "1GB", "--trust-own", "--dry-run", "--json").stdout)
        return [one["mfid"] for one in eviction["evicted"]]

    assert state_receipts(session, outcomes)[1] == []
    assert going() == [scaled]
    environment = outcomes[0].environment
    outcomes[0].verdict, outcomes[0].environment = DIFFERS, {**environment, "python": "3.9.0"}
    state_receipts(session, outcomes)
    assert going() == [], "the last receipt counts"
    outcomes[0].verdict, outcomes[0].environment = IDENTICAL, environment
    state_receipts(session, outcomes)
    assert going() == [scaled]
    outcomes[0].verdict, outcomes[0].causes = DIFFERS, ["the step is not deterministic: made twice here, x differs too"]
    state_receipts(session, outcomes)
    outcomes[0].verdict, outcomes[0].causes = IDENTICAL, []
    state_receipts(session, outcomes)
    assert going() == [], "the next time it may be another one"


def test_results_of_the_same_bytes_are_let_go_together_and_what_others_hold_stays(lab: Any, session: Session) -> None:
    lab.declare(lab.pipeline.read_text().replace("steps:", "steps:\n  again: {uses: LABMODULE:scale, inputs: "
        "{counts: first}, params: {factor: 3.0}, output: {dataset_name: again}}\n").replace(
        "first: {file: first.txt, timestamp", "again_first: {file: first.txt, timestamp: \"2024-06-01T12:00:00Z\"}\n"
        "  first: {file: first.txt, timestamp").replace("inputs: {counts: first}, params: {factor: 3.0}",
        "inputs: {counts: again_first}, params: {factor: 3.0}"))  # fmt: skip
    done = run(lab, session)
    both = {done.datasets[name]["out"] for name in ("scaled", "again")}
    assert len(both) == 2
    for mfid in both:
        assert ask(session, "reproduce", mfid, "--here").exit_code == 0

    def eviction(*more: str) -> Any:
        return json.loads(ask(session, "evict", "--to-free", "1B", "--trust-own", "--json", *more).stdout)

    assert {one["mfid"] for one in eviction("--dry-run")["evicted"]} == both
    theirs = session.client.datasets.create({"dataset_name": "theirs", "project_id": "lab"}).dsid
    (lab.folder / "copy.txt").write_text("3.0\n6.0\n9.0")
    session.client.files.upload(theirs, lab.folder / "copy.txt")
    assert eviction("--dry-run")["evicted"] == [], "a dataset without a record holds the same bytes"
    session.client.deletions.delete(theirs, force=True, elevated=True)
    went = eviction()
    assert ({one["mfid"] for one in went["evicted"]}, went["freed"] > 0) == (both, True)
    verified = json.loads(ask(session, "verify", "--project", "lab", "--bytes", "--json").stdout)
    assert (verified["ok"], verified["damaged"]) == (True, [])
    evicted = [one["mfids"] for one in verified["findings"] if one["class"] == "file-evicted"]
    assert {mfid for mfids in evicted for mfid in mfids} == both


def test_bytes_that_somebody_got_while_it_was_stated_stay(lab: Any, session: Session) -> None:
    scaled = run(lab, session).datasets["scaled"]["out"]
    assert ask(session, "reproduce", scaled, "--here").exit_code == 0
    planned = plan_eviction(session, 1, trust_own=True)
    (lab.folder / "copied.txt").write_text("3.0\n6.0\n9.0")
    assert ask(session, "register", lab.folder / "copied.txt", "--project", "lab").exit_code == 0
    before = size_of(session, scaled)
    assert (evict(session, planned), size_of(session, scaled)) == (0, before)
