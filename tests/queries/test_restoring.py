"""Files that Crucible has damaged or lost are sent again from intact copies, or as remade; failures have a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import LineageError
from crucible_lineage.lineage.records import SURROUNDINGS
from crucible_lineage.remake.driver import Options
from crucible_lineage.remake.reproduce import restore
from crucible_lineage.statements.consent import Consent

HERE = "its step, run again"


def damage(made: Any, mfid: str, name: str) -> bytes:
    """Change a stored file behind the server's back; return its former bytes."""
    stored: Path = made.stored(mfid, name)
    before = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(b"#" * len(before))
    return before


def restored(made: Any, mfid: str, *folders: Path) -> list[tuple[str, str]]:
    """Return the file and its source, of each that was lost."""
    options = Options(here=True, environments=made.session.settings.data / "environments")
    found = restore(made.session, mfid, folders, options, lambda _: None, Consent())
    return [(file.filename, file.source) for file in found]


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
    ((name, source),) = restored(made, made.scaled)
    assert (name, Path(source).is_relative_to(made.session.settings.data / "cache")) == ("scaled.txt", True)
    assert made.stored(made.scaled, "scaled.txt").read_bytes() == good
    assert made.findings(read_bytes=True) == set()


def test_bytes_are_taken_from_another_data_folder(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made.session.settings.data, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "cache")
    shutil.rmtree(made.session.settings.data / "cache")
    good = damage(made, made.first, "first.txt")
    assert restored(made, made.first) == [("first.txt", "")], "measured data cannot be made again"
    ((name, source),) = restored(made, made.first, tmp_path / "other")
    assert (name, Path(source).is_relative_to(tmp_path / "other" / "crucible")) == ("first.txt", True)
    assert made.stored(made.first, "first.txt").read_bytes() == good


@pytest.mark.usefixtures("keeping")
def test_results_are_remade_after_their_parents(made: Any) -> None:
    shutil.rmtree(made.session.settings.data / "cache")
    good = [damage(made, mfid, f"{name}.txt") for mfid, name in ((made.scaled, "scaled"), (made.total, "total"))]
    with pytest.raises(LineageError, match=f"reproduce {made.scaled} --restore"):
        restored(made, made.total)
    assert restored(made, made.scaled) == [("scaled.txt", HERE)]
    assert restored(made, made.total) == [("total.txt", HERE)]
    assert made.findings(read_bytes=True) == set()
    assert good == [
        made.stored(mfid, f"{n}.txt").read_bytes() for mfid, n in ((made.scaled, "scaled"), (made.total, "total"))
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
    assert sorted(name for mfid in {mfid for mfid, _ in good} for name, source in restored(made, mfid) if source) == (
        sorted(name for _, name in good)
    )
    assert good == {key: made.stored(*key).read_bytes() for key in good}


@pytest.mark.usefixtures("keeping")
def test_other_bytes_of_the_same_step_are_never_sent(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step now writes something else with the same code: it depends on more than its inputs."""
    shutil.rmtree(made.session.settings.data / "cache")
    damage(made, made.scaled, "scaled.txt")
    monkeypatch.setattr("crucible_lineage.remake.reproduce.file_sha256", lambda _: "0" * 64)
    monkeypatch.setattr("crucible_lineage.remake.reproduce.has_bytes", lambda *given: given[2] != "scaled.txt")
    assert restored(made, made.scaled) == [("scaled.txt", "")]
    assert made.findings(read_bytes=True) == {("file-damaged", (made.scaled,))}


def test_the_way_out_of_a_finding_works_on_the_command_line(made: Any, command: Any) -> None:
    damage(made, made.scaled, "scaled.txt")
    data = ["--data", made.session.settings.data]
    found = command("verify", made.scaled, "--bytes", *data)
    assert found.returncode == 1
    (way_out,) = [line for line in found.stdout.splitlines() if "way out" in line]
    words = way_out.partition("crucible-lineage ")[2].split()
    sent = command(*words, *data)
    assert (sent.returncode, "restored scaled.txt" in sent.stdout) == (0, True), sent.stdout + sent.stderr
    assert json.loads(command(*words, "--json", *data).stdout) == {"restored": []}
    assert command("verify", made.scaled, "--bytes", *data).returncode == 0


def test_a_damaged_copy_in_the_cache_is_found_and_the_way_out_drops_it(made: Any, command: Any) -> None:
    stored: Path = made.stored(made.first, "first.txt")
    copy = made.session.cache.path(stored.parent.name + stored.name)
    copy.chmod(0o644)
    copy.write_bytes(b"#")
    assert made.findings(read_bytes=True) == {("cache-damaged", (made.first,))}
    assert command("data", "clean", "--cache", "--yes", "--data", made.session.settings.data).returncode == 0
    assert made.findings(read_bytes=True) == set()
