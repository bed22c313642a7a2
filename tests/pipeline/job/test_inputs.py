"""A step reads the bytes of the recorded hash, whatever happened to the cache and whatever other steps did."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

STEPS = """
import os, sys, time
from pathlib import Path

from crucible_lineage import step


def overwrite(path: Path):
    path.chmod(0o666)
    path.write_text("poisoned")


@step
def spoil(counts: Path, *, way: str, out: Path) -> dict:
    overwrite(counts)
    (out / "x.txt").write_text("made from something else")
    if way == "fails":
        raise RuntimeError("and it fails")
    if way == "hangs":
        time.sleep(60)
    if way == "dies":
        os.kill(os.getpid(), 9)
    return {}


@step
def take(counts: Path, *, out: Path) -> dict:
    (out / "taken.txt").write_text(counts.read_text())
    return {}


@step
def put_together(parts: dict[str, Path], *, out: Path) -> dict:
    (out / "all.txt").write_text("".join(f"{name}: {path.read_text()}\\n" for name, path in parts.items()))
    return {"parts": len(parts)}
"""
FIRST = 'first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}'


@pytest.fixture
def declare(lab: Any) -> Callable[[str], Path]:
    """Declare a pipeline of these steps over the first file."""
    lab.file(f"{lab.module}_inputs.py", STEPS)

    def declared(steps: str, inputs: str = FIRST) -> Path:
        text = f"pipeline: p\nproject: lab\ninputs:\n  {inputs}\nsteps:\n{steps}"
        return Path(lab.declare(text.replace("USES", "LABMODULE_inputs"), f"p-{abs(hash(text))}.yaml"))

    return declared


TAKE = "  taken: {uses: 'USES:take', inputs: {counts: first}}\n"


def cached(data: Path) -> list[Path]:
    return [path for path in (data / "cache").rglob("*") if path.is_file()]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_step_never_reads_a_damaged_file_of_the_cache(
    declare: Any, lab: Any, data: Path, command: Any, text_of: Any, damage: Callable[[Path], None]
) -> None:
    assert command("run", lab.pipeline, "--engine", "local", "--data", data).returncode == 0
    for path in cached(data):
        damage(path)
    ran = command("run", declare(TAKE), "--engine", "local", "--data", data, "--json")
    assert ran.returncode == 0, ran.stderr
    note = "the file cache had other bytes for first.txt; they were fetched again"
    assert json.loads(ran.stdout)["notes"] == {"taken": note}
    with Session(Settings(data)) as session:
        (taken,) = session.client.datasets.list(dataset_name="first (taken)")
        (file,) = session.client.datasets.list_files(taken.unique_id)
        assert session.client.files.download_bytes(file) == b"1\n2\n3\n"


def test_verify_reports_a_damaged_file_of_the_cache(lab: Any, run: Any, data: Path, session: Session) -> None:
    assert run(lab.pipeline).ok
    assert verify_project(session, "lab", read_bytes=True).findings == ()
    flip(next(path for path in cached(data) if path.read_text() == "10\n"))
    (finding,) = verify_project(session, "lab", read_bytes=True).findings
    assert finding.check == "cache-damaged"
    assert "second.txt" in finding.message
    assert verify_project(session, "lab").findings == (), "only with --bytes are bytes looked at"


@pytest.mark.parametrize("way", ["hangs", "ends"])
def test_no_step_can_change_the_input_of_the_next_one(
    declare: Any, run: Any, text_of: Any, data: Path, way: str
) -> None:
    limit = ", timeout: 5" if way in ("hangs", "dies") else ""
    spoiled = f"  spoiled: {{uses: 'USES:spoil', inputs: {{counts: first}}, params: {{way: {way}}}{limit}}}\n"
    failed = run(declare(spoiled))
    assert list(failed.errors) == ["spoiled"]
    messages = "changed its input 'first.txt' while it ran", "; its input 'first.txt' was changed while it ran"
    assert messages[way != "ends"] in failed.errors["spoiled"]
    assert all(path.read_text() != "poisoned" for path in cached(data))
    after = run(declare(TAKE))
    assert text_of(after.datasets["taken"]["out"]) == "1\n2\n3\n"
    assert after.notes == {}, "and nothing had to be fetched again for that"


def test_files_of_several_parents_are_separated_by_the_number_of_the_parent(
    declare: Any, run: Any, text_of: Any, lab: Any
) -> None:
    for folder in ("one", "two"):
        (lab.folder / folder).mkdir()
    lab.file("one/scan.txt", "1")
    lab.file("two/scan.txt", "2")
    lab.file("two/notes.txt", "n")
    inputs = (
        'a: {file: one/scan.txt, timestamp: "2024-05-01T12:00:00Z"}\n'
        '  b: {file: [two/scan.txt, two/notes.txt], timestamp: "2024-05-01T12:00:01Z"}'
    )
    made: RunResult = run(declare("  all: {uses: 'USES:put_together', inputs: {parts: [a, b]}}\n", inputs))
    assert made.ok, made.errors
    assert text_of(made.datasets["all"]["out"]) == "1/scan.txt: 1\nnotes.txt: n\n2/scan.txt: 2\n"


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_only_the_owner_can_read_stored_files_whatever_the_umask(
    declare: Any, lab: Any, data: Path, command: Any
) -> None:
    data.mkdir(mode=0o755)  # a person's own folder stays as it is
    path = declare(TAKE + "  spoiled: {uses: 'USES:spoil', inputs: {counts: first}, params: {way: fails}}\n")
    wrong = ("--file-sha256", hashlib.sha256(b"1\n2\n3\n").hexdigest())
    before = os.umask(0)
    try:
        assert command("run", lab.pipeline, "--engine", "local", "--data", data).returncode == 0
        assert command("run", path, "--engine", "local", "--data", data).returncode == 1
        assert command("verify", "--project", "lab", "--data", data).returncode == 0
        assert command("impact", "--project", "lab", "--data", data, *wrong).returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    others = stat.S_IRWXG | stat.S_IRWXO
    assert [path.name for path in data.iterdir() if path.stat().st_mode & others] == []
    assert [str(path) for path in (data / "crucible").rglob("*") if path.stat().st_mode & others] == []
    names = {part.name for part in data.iterdir()}
    assert {"cache", "crucible", "journal.sqlite", "locks", "registrar", "store.sqlite", "work"} <= names
