"""Only plain files in a step's folder are registered; everything else is an error that names it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import UnreachableError
from crucible_lineage.machine.process import REQUESTS_AT_ONCE
from crucible_lineage.pipeline.run.result import StepChoice
from crucible_lineage.registration.read import read
from crucible_lineage.registration.register import Submission
from crucible_lineage.session import Session
from tests.golden.stored import run_examples

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, pipes and sockets are POSIX")


@pytest.mark.parametrize("name", ["results", "records"])
def test_what_a_result_is_called_says_and_has(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.mkfifo(out / 'pipe')", "left a named pipe 'pipe' where its files go"),
        ("(out / 'a\\udc80').write_text('1')", r"wrote a file 'a\udc80', whose name is no Unicode text"),
    ],
)
def test_entries_that_are_not_files_are_named_and_nothing_is_registered(
    odd: Any, session: Session, run: Any, body: str, message: str
) -> None:
    result = run(odd(body))
    assert message in result.errors["odd"]
    assert len(session.client.datasets.list(project_id="lab", limit=None)) == 1, "only the input"


def test_a_folder_that_replaces_that_of_the_step_keeps_its_files(lab: Any, odd: Any, run: Any) -> None:
    mine = lab.folder / "mine"
    mine.mkdir()
    (mine / "precious.txt").write_text("years of work")
    result = run(odd(f"out.rmdir()\nout.symlink_to({str(mine)!r})"))
    assert "replaced its folder 'out' by a link" in result.errors["odd"]
    assert (mine / "precious.txt").read_text() == "years of work"


def test_a_file_with_another_hard_link_is_copied(lab: Any, odd: Any, run: Any, text_of: Any) -> None:
    other = lab.folder / "other.txt"
    other.write_text("shared")
    result = run(odd(f"os.link({str(other)!r}, out / 'x.txt')"))
    assert result.executed == ["odd"], result.errors
    assert text_of(result.datasets["odd"]["out"]) == "shared"
    assert other.read_text() == "shared"
    assert other.stat().st_nlink == 1


def test_many_files_are_sent_in_parallel_and_a_failure_leaves_the_dataset_incomplete(
    odd: Any, session: Session, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most, broken = 0, 0, True
    lock, upload = threading.Lock(), Submission._upload

    def watched(own: Submission, held: Any, file: Any) -> Any:
        nonlocal under_way, most
        if broken and file.ref.name == "f20.txt":
            raise UnreachableError("the line is down")
        with lock:
            under_way += 1
            most = max(most, under_way)
        try:
            return upload(own, held, file)
        finally:
            with lock:
                under_way -= 1

    monkeypatch.setattr(Submission, "_upload", watched)
    path = odd("for number in range(40):\n    (out / f'f{number}.txt').write_text(f'{number}')")
    waits = run(path, StepChoice(patience_s=0.5))
    assert not waits.ok
    (mfid,) = [mfid for one in waits.waiting for mfid in one.mfids]
    assert mfid == waits.datasets["odd"]["out"]
    assert under_way == 0, "what was under way has been waited for"
    begun = read(session.client, mfid)
    assert begun is not None
    assert begun.ref is None, "it counts as incomplete"
    broken = False
    made = run(path)
    assert made.ok, made.errors
    assert made.executed == [], "made once, sent now"
    names = [file.filename for file in session.client.datasets.list_files(mfid)]
    assert sorted(names) == sorted(f"f{number}.txt" for number in range(40))
    assert 1 < most <= REQUESTS_AT_ONCE
