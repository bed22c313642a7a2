"""A deletion asked for, once it is said what was made of the dataset."""

from __future__ import annotations

from dataclasses import dataclass

from crucible_lineage.amounts import amount
from crucible_lineage.errors import InputError
from crucible_lineage.queries.impact import dataset_impact
from crucible_lineage.session import Session

__all__ = ["AskedDeletion", "ask_deletion"]

MOST_NAMED = 5


@dataclass(frozen=True)
class AskedDeletion:
    """A dataset whose deletion was asked for, the number of the request, and the datasets that were made of it."""

    mfid: str
    request: int
    made_of_it: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mfid}: deletion is asked for; made of it and kept: {amount(len(self.made_of_it), 'dataset')}"

    def to_json(self) -> dict[str, object]:
        """Return the entry for `delete --json`."""
        return {"mfid": self.mfid, "request": self.request, "made_of_it": list(self.made_of_it)}


def ask_deletion(session: Session, mfid: str, why: str = "", *, even_if_used: bool, else_say: str) -> AskedDeletion:
    """Ask for a dataset to be deleted: it is hidden at once, and deleted when an administrator has agreed.

    Raises InputError if something was made of it, unless it is to be deleted `even_if_used`; the message ends with
    `else_say`.
    """
    below = dataset_impact(session, mfid).redo
    if below and not even_if_used:
        more = f" and {len(below) - MOST_NAMED} more" if len(below) > MOST_NAMED else ""
        named = ", ".join(below[:MOST_NAMED]) + more
        raise InputError(
            f"delete {mfid}: {amount(len(below), 'dataset')} made of it: {named}. Nothing was changed; {else_say}"
        )
    request = session.client.datasets.delete(mfid, why or None)
    session.mirror.forget([mfid])
    return AskedDeletion(mfid, request.id, tuple(below))
