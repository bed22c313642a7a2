"""Files that Crucible has damaged or lost are repaired from intact copies; failures have a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import repaired, verify_project
from crucible_lineage.provenance.record import SURROUNDINGS


def damage(made: Any, mfid: str, name: str) -> bytes:
    """Change a stored file behind the server's back; return its former bytes."""
    stored: Path = made.stored(mfid, name)
    before = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(b"#" * len(before))
    return before


def repair_all(made: Any, *folders: Path) -> tuple[set[tuple[str, tuple[str, ...]]], list[tuple[str, str, str]]]:
    """Return the remaining findings, and (file, source, error) of each repair."""
    session = made.session
    found = verify_project(session, "lab", read_bytes=True)
    left, repairs = repaired(session, found, lambda: verify_project(session, "lab"), folders)
    findings = {(finding.check, finding.ids) for finding in left.findings}
    return findings, [(repair.filename, repair.source, repair.error) for repair in repairs]


@pytest.mark.parametrize("damage_kind", ["changed", "gone", "not listed"])
def test_bytes_are_taken_from_the_cache(made: Any, damage_kind: str) -> None:
    stored: Path = made.stored(made.scaled, "scaled.txt")
    good = stored.read_bytes()
    if damage_kind == "changed":
        damage(made, made.scaled, "scaled.txt")
    elif damage_kind == "gone":
        stored.unlink()
    else:
        made.session.client.files.delete(made.file_mfid(made.scaled, "scaled.txt"))
    assert made.findings(read_bytes=True)
    assert repair_all(made) == (set(), [("scaled.txt", "this data folder's cache", "")])
    assert made.stored(made.scaled, "scaled.txt").read_bytes() == good
    assert made.findings(read_bytes=True) == set()


def test_bytes_are_taken_from_another_data_folder(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.session.settings.data, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "cache")
    shutil.rmtree(made.session.settings.data / "cache")
    good = damage(made, made.first, "first.txt")
    (_, [(name, source, error)]) = repair_all(made)
    assert (name, source) == ("first.txt", "")
    assert "no copy was found" in error
    findings, [(name, source, error)] = repair_all(made, tmp_path / "other")
    assert (findings, name, error) == (set(), "first.txt", "")
    assert source.startswith(str(tmp_path / "other" / "crucible"))
    assert made.stored(made.first, "first.txt").read_bytes() == good


@pytest.mark.usefixtures("keeping")
def test_results_are_remade_after_their_parents(made: Any) -> None:
    shutil.rmtree(made.session.settings.data / "cache")
    good = [damage(made, mfid, f"{name}.txt") for mfid, name in ((made.total, "total"), (made.scaled, "scaled"))]
    findings, repairs = repair_all(made)
    assert findings == set()
    source = "rerunning its step"
    assert sorted(repairs) == [("scaled.txt", source, ""), ("total.txt", source, "")]
    assert good == [
        made.stored(mfid, f"{n}.txt").read_bytes() for mfid, n in ((made.total, "total"), (made.scaled, "scaled"))
    ]
    assert not list((made.session.settings.data / "work").iterdir())


@pytest.mark.usefixtures("keeping")
def test_a_kept_environment_is_taken_from_the_present_one_where_that_is_the_same(made: Any) -> None:
    found = made.session.client.datasets.list(project_id="lab", measurement=SURROUNDINGS)
    good = {(one.unique_id, file.filename): made.stored(one.unique_id, file.filename).read_bytes()
            for one in found for file in made.session.client.files.list(one.unique_id)}  # fmt: skip
    assert len(good) == 2
    shutil.rmtree(made.session.settings.data / "cache", ignore_errors=True)
    for mfid, name in good:
        damage(made, mfid, name)
    findings, repairs = repair_all(made)
    assert findings == set()
    assert {source for _, source, _ in repairs} == {"the environment of this Python"}
    assert good == {key: made.stored(*key).read_bytes() for key in good}


def test_a_result_of_lost_parents_is_not_repaired_with_a_reason(made: Any) -> None:
    shutil.rmtree(made.session.settings.data / "cache")
    damage(made, made.first, "first.txt")
    damage(made, made.scaled, "scaled.txt")
    findings, repairs = repair_all(made)
    assert findings == {("file-damaged", (made.first,)), ("file-damaged", (made.scaled,))}
    assert all("no copy was found, and rerunning its step failed" in error for _, _, error in repairs)


def test_other_bytes_of_the_same_step_are_never_sent(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step now writes something else with the same code: it depends on more than its inputs."""
    shutil.rmtree(made.session.settings.data / "cache")
    damage(made, made.scaled, "scaled.txt")
    from contextlib import contextmanager

    @contextmanager
    def other(session: Any, mfid: str, consent: Any) -> Any:
        yield {"0" * 64: Path(__file__)}

    monkeypatch.setattr("crucible_lineage.ask.repair.remade_files", other)
    found = verify_project(made.session, "lab", read_bytes=True)
    left, (outcome,) = repaired(made.session, found, lambda: verify_project(made.session, "lab"), ())
    assert outcome.error == "no copy was found, and the remade file differs"
    (finding,) = left.findings
    assert outcome.error in finding.message
    assert finding.command == f"crucible-lineage verify {made.scaled} --repair --from FOLDER"


def test_a_damaged_copy_in_the_cache_is_dropped(made: Any) -> None:
    stored: Path = made.stored(made.first, "first.txt")
    copy = made.session.cache.path(stored.parent.name + stored.name)
    copy.chmod(0o644)
    copy.write_bytes(b"#")
    assert made.findings(read_bytes=True) == {("cache-damaged", (made.first,))}
    assert repair_all(made) == (set(), [])
    assert not copy.exists()


def test_the_way_out_of_a_finding_works_on_the_command_line(made: Any, command: Any) -> None:
    damage(made, made.scaled, "scaled.txt")
    data = ["--data", made.session.settings.data]
    found = command("verify", made.scaled, "--bytes", *data)
    assert found.returncode == 1
    (way_out,) = [line for line in found.stdout.splitlines() if "way out" in line]
    words = way_out.partition("crucible-lineage ")[2].split()
    repaired_run = command(*words, *data)
    assert (repaired_run.returncode, "repaired scaled.txt" in repaired_run.stdout) == (0, True), (
        repaired_run.stdout + repaired_run.stderr
    )
    clean = json.loads(command(*words, "--json", *data).stdout)
    assert (clean["ok"], clean["damaged"], clean["repairs"]) == (True, [], [])
