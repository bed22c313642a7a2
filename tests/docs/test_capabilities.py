"""CAPABILITIES.md is true: each promise has a command, a room and a test; each command and room has a promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crucible_lineage import __all__ as library
from crucible_lineage.cli import COMMANDS
from crucible_lineage.tasks import __all__ as tasks

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|").split("|")]
    for line in (ROOT / "CAPABILITIES.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [A-Z]", line)
]


@pytest.mark.parametrize(("promise", "user", "command", "room", "test"), ROWS, ids=[row[0][:40] for row in ROWS])
def test_a_promise_has_a_user_a_command_a_room_and_a_test(
    promise: str, user: str, command: str, room: str, test: str
) -> None:
    assert user
    assert command in {*COMMANDS, *library, *tasks}
    assert (ROOT / room).exists()
    assert (ROOT / test).is_file()


def test_every_command_has_a_promise() -> None:
    assert set(COMMANDS) <= {row[2] for row in ROWS}


def test_every_room_has_a_promise() -> None:
    rooms = {path.parent.name for path in (ROOT / "crucible_lineage").glob("*/__init__.py")}
    assert rooms <= {Path(row[3]).name for row in ROWS} | {"local"}
