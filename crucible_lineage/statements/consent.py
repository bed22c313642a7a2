"""Whose recorded code may run on this machine: the own account's, that of members of named projects, and named ones.

Reading executes nothing. `reproduce`, and `rerun` of a command, run what a record says, and anybody can write a record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, shortened
from crucible_lineage.ids import is_mfid, is_orcid
from crucible_lineage.lineage.labels import plain_lines
from crucible_lineage.machine.disk import private_file
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import owner_of

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.provenance.schema import StepRecord

NAMED = "code-that-runs-here.txt"  # in the data folder: a line for each project or account, and its Crucible
UNKNOWN = "an unknown account"
MOST_NAMED = 5  # chosen: steps that a refusal lists


@dataclass(frozen=True)
class RecordedCode:
    """What making a result again runs, the accounts that answer for it as Crucible says it, and a name for them."""

    mfid: str
    step: str
    runs: str
    authors: frozenset[str]
    name: str

    def __str__(self) -> str:
        return f"step {self.step} of {self.mfid}: {self.runs}, by {self.name} ({', '.join(sorted(self.authors))})"


def recorded_code(dataset: Dataset, record: StepRecord) -> RecordedCode:
    """Return the code of a result. Its owner answers for it, together with the account that its record names.

    They differ for a dataset that was handed over.
    """
    authors = frozenset({owner_of(dataset.model_dump()) or UNKNOWN, record.agent.unique_id or UNKNOWN})
    name = getattr(dataset.owner, "username", None) or record.agent.username or "somebody"
    return RecordedCode(dataset.unique_id, record.declared_step, record.activity.function, authors, name)


class Consent:
    """The accounts whose code a command may run; `ask` asks about others."""

    def __init__(self, accounts: Iterable[str] = (), ask: Callable[[str], bool] | None = None) -> None:
        self.accounts = {*accounts}
        self.ask = ask

    def require(self, session: Session, codes: Iterable[RecordedCode]) -> None:
        """Raise InputError for code of others that was not agreed to. Asks at most once."""
        foreign = [code for code in codes if not code.authors <= self.accounts]
        authors = frozenset[str]().union(*(code.authors for code in foreign)) - self.accounts
        if any(is_mfid(author) or is_orcid(author) for author in authors):  # a bundle is checked without Crucible
            authors -= {str(session.agent["unique_id"])}
        authors -= trusted(session) if authors else set()
        if not authors:
            return
        shown = shortened([str(code) for code in foreign if authors & code.authors], MOST_NAMED)
        if self.ask and self.ask(f"code of others would run here: {shown}\nrun it?"):
            self.accounts |= authors
            return
        option = " ".join(f"--run-code-of {author}" for author in sorted(authors)) + ", or " if self.ask else ""
        raise InputError(
            f"code of others would run here, and was not run: {shown}\nto see it: `crucible-lineage reproduce` with "
            f"--show-code; to let it run: {option}`crucible-lineage project trust NAME --code`, with an account, or a "
            "project for all its members; nothing was changed"
        )


def ask_in_terminal(question: str) -> bool:
    """Ask on standard error; no if nobody is there to answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(plain_lines(question), end=" [y/N] ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def trust_code(session: Session, names: Iterable[str]) -> Path:
    """Let the code of these accounts, and of the members of these projects, run here. Return the file that says so."""
    path = private_file(session.settings.data / NAMED)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\t{session.store.instance}\n" for name in names)
    return path


def trusted(session: Session) -> set[str]:
    """Return the accounts whose code runs here: those named, and the members of named projects, as of now."""
    path = session.settings.data / NAMED
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = {
        name for name, _, instance in (line.partition("\t") for line in lines) if instance == session.store.instance
    }
    found = {*names}
    for name in names:
        with suppress(ForbiddenError, NotFoundError):
            lead = session.client.projects.get(name).lead
            found |= {
                member.unique_id for member in (*session.client.projects.members(name), *([lead] if lead else []))
            }
    return found
