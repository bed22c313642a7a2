"""Statements signed with an ssh key are verified by ssh-keygen; of another text or signer they are not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import HOLD, About
from crucible_lineage.statements.stating import KEY_VARIABLE, signature_of, signer_of, state

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of allowed signers, of whom one is configured here."""
    for name in ("mara", "eve"):
        made = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name)
        subprocess.run(made, check=True, timeout=60)
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "mara"))
    path = tmp_path / "allowed_signers"
    path.write_text(f"mara@lab {(tmp_path / 'mara.pub').read_text()}")
    return path


def test_a_statement_is_signed_and_verified_by_who_has_the_public_key(
    allowed: Path, session: Session, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.ensure_project("lab")
    said = state(session, "lab", HOLD, About(instrument="lamp"), why="old").statement
    assert signer_of(said.signed_text, said.signature, allowed) == "mara@lab"
    assert signer_of(said.signed_text + b" ", said.signature, allowed) == ""
    asked = ("statements", "--verify", allowed, "--data", session.settings.data)
    told = command(*asked)
    assert (told.returncode, "(signed by mara@lab)" in told.stdout) == (0, True)
    monkeypatch.setenv(KEY_VARIABLE, str(allowed.parent / "eve"))
    state(session, "lab", HOLD, About(instrument="lamp"), why="another")
    told = command(*asked, "--json")
    assert told.returncode == 1
    assert sorted(statement["signer"] for statement in json.loads(told.stdout)["statements"]) == ["", "mara@lab"]


def test_a_key_that_cannot_be_used_is_told_before_anything_is_stated(
    allowed: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.ensure_project("lab")
    monkeypatch.setenv(KEY_VARIABLE, str(allowed.parent / "nobody"))
    with pytest.raises(InputError, match="sign with the key"):
        state(session, "lab", HOLD, About(instrument="lamp"), why="old")
    assert session.mirror.statements() == {}
    monkeypatch.delenv(KEY_VARIABLE)
    assert signature_of(b"text") == ""
