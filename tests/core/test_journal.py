"""The journal: allowed transitions, the history of runs, and no wrong answer from a damaged file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crucible_lineage.core.journal import (
    DELIVERED,
    FAILED,
    MADE,
    OVERTAKEN,
    REFUSED,
    SKIPPED,
    Journal,
    ResultRow,
    StateError,
)

ONE, TWO = "0tr5k2ndm5zvd000nr21qakeh4", "0tr5k2ndm5zvd000nr21qakeh5"
AT = "2026-11-27T12:00:00+00:00"
NO_FACTS = {"error": None}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.sqlite", "https://x.test", lambda: "a")) as opened:
        yield opened


def made(step: str, mfid: str, run: str = "r") -> ResultRow:
    return ResultRow(run, "a", "lab", step, mfid, {"out": mfid}, MADE, AT)


def states(journal: Journal) -> list[str]:
    return [state for (state,) in journal.rows("SELECT state FROM result ORDER BY id")]


def test_a_result_waits_until_it_is_delivered(journal: Journal) -> None:
    journal.begin_run("r", "p", "lab", Path("p.yaml"))
    journal.note_made(made("fit", ONE))
    journal.move_waiting(ONE, MADE, is_try=True, error="no answer")
    (row,) = journal.waiting()
    assert (row.step, row.outputs, row.tries, row.error) == ("fit", {"out": ONE}, 1, "no answer")
    journal.move_waiting(ONE, DELIVERED, error=None)
    assert journal.waiting() == []
    assert states(journal) == [DELIVERED]


def test_a_forbidden_transition_is_refused_and_changes_nothing(journal: Journal) -> None:
    journal.note_made(made("fit", ONE))
    with pytest.raises(StateError, match="from made to skipped"):
        journal.move_waiting(ONE, SKIPPED)
    assert states(journal) == [MADE]


def test_the_end_of_a_step_does_not_change_its_waiting_payload(journal: Journal) -> None:
    journal.note_made(made("fit", ONE))
    journal.move_waiting(ONE, REFUSED, is_try=True, error="refused: no")
    journal.end_step("r", "lab", "fit", FAILED, {}, **{**NO_FACTS, "error": "made, and not registered"})
    (row,) = journal.waiting()
    assert row.refused
    assert journal.run_steps("r") == [("fit", "failed", {"out": ONE})]


def test_a_delivered_result_can_still_fail(journal: Journal) -> None:
    journal.note_made(made("fit", ONE))
    journal.move_waiting(ONE, DELIVERED)
    journal.end_step("r", "lab", "fit", FAILED, {"out": ONE}, **NO_FACTS)
    assert states(journal) == [FAILED]


def test_the_last_attempt_counts_and_reused_steps_are_listed(journal: Journal) -> None:
    journal.begin_run("r", "p", "lab", Path("p.yaml"))
    journal.note_present("r", "reused", {"raw": {"out": TWO}})
    journal.note_made(made("fit", ONE))
    journal.move_waiting(ONE, OVERTAKEN, error="made of other bytes")
    journal.note_made(made("fit", ONE))
    journal.end_step("r", "lab", "plot", SKIPPED, {}, **NO_FACTS)
    journal.end_run("r", "failed")
    assert journal.run_steps("r") == [
        ("fit", "executed", {"out": ONE}),
        ("plot", "skipped", {}),
        ("raw", "reused", {"out": TWO}),
    ]
    (run,) = journal.recent_runs("LAB", 5)
    assert (run["outcome"], run["steps"]) == ("failed", {"executed": 1, "skipped": 1, "reused": 1})
    assert journal.datasets("lab") == {ONE, TWO}


def test_only_a_later_success_ends_a_failure(journal: Journal) -> None:
    def run(name: str, state: str) -> None:
        journal.begin_run(name, "p", "lab", Path("p.yaml"))
        journal.end_step(name, "lab", "fit", state, {}, **NO_FACTS, name=ONE, about='["scan"]')

    run("first", OVERTAKEN)
    run("second", FAILED)
    assert list(journal.failures()) == [ONE]
    run("third", OVERTAKEN)
    assert journal.failures() == {}


@pytest.mark.parametrize("seed", range(6))
def test_a_journal_with_overwritten_bytes_never_names_a_wrong_dataset(tmp_path: Path, seed: int) -> None:
    path, dice = tmp_path / "journal.sqlite", random.Random(seed)
    names = [f"{number:026d}" for number in range(120)]
    with closing(Journal(path, "here", lambda: "")) as journal:
        journal.begin_run("r", "p", "lab", Path("p.yaml"))
        journal.note_present("r", "reused", {f"s{name}": {"out": name} for name in names[:60]})
        for name in names[60:]:
            journal.note_made(made(f"s{name}", name))
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice((1, 3, 40))):
        offset = dice.randrange(len(content) - 3)
        content[offset : offset + 3] = dice.randbytes(3)
    path.write_bytes(content)
    with closing(Journal(path, "here", lambda: "")) as journal:
        assert journal.datasets("lab") <= set(names)
        assert {mfid for row in journal.waiting() for mfid in row.outputs.values()} <= set(names)
        journal.recent_runs("lab", 5), journal.pipelines()


def fail(journal: Journal, run: str, name: str) -> None:
    journal.begin_run(run, "p", "lab", Path("p.yaml"))
    facts = {"error": f"{run}: too dark", "about": json.dumps([TWO])}
    journal.end_step(run, "lab", "s[x]", FAILED, {}, name=name, **facts)


def test_failures_are_those_of_results_not_made_since(journal: Journal) -> None:
    fail(journal, "one", ONE)
    fail(journal, "two", ONE)
    (failure,) = journal.failures("LAB").values()
    assert (failure.mfid, failure.failures, failure.subject, failure.error) == (ONE, 2, (TWO,), "two: too dark")
    assert (failure.step, failure.pipeline, bool(failure.last)) == ("s[x]", "p", True)
    fail(journal, "four", TWO)
    assert [(failure.mfid, failure.failures) for failure in journal.failures().values()] == [(TWO, 1)]
    journal.begin_run("five", "p", "lab", Path("p.yaml"))
    journal.note_made(made("s[x]", TWO, "five"))
    assert journal.failures() == {}


def test_failures_without_a_subject_do_not_count(journal: Journal) -> None:
    journal.begin_run("none", "p", "lab", Path("p.yaml"))
    journal.end_step("none", "lab", "s[x]", FAILED, {}, error="the service is away")
    assert journal.failures() == {}
