"""How the ingestions that a run asked for have ended, when the run does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from crucible_lineage.errors import CrucibleError
from crucible_lineage.session import Session

__all__ = ["MOST_TOLD", "not_ingested"]

MOST_TOLD = 1000  # files that could not be read, in one run
_INGESTED_HERE_S = 10.0  # chosen: this machine reads the files itself, and mostly within a second


def not_ingested(
    session: Session, run_id: str, before: Collection[int], waited: Callable[[], Collection[str]], *, asked: bool
) -> tuple[str, ...]:
    """Follow ingestions, and describe the files that were not read, apart from those described `before`.

    Those of the embedded Crucible are given some seconds to end, if the run has `asked` for any. `waited` gives the
    datasets whose ingestion is to be waited for: where that is still open, it is described as well.
    """
    found = [one for one in session.store.ended_ingestions(MOST_TOLD) if one.request not in before]
    if session.store.open_ingestions() and session.outbox.is_empty:
        from crucible_lineage.registration.ingestion import follow_ingestions  # few runs have any

        at_most_s = _INGESTED_HERE_S if session.settings.embedded and asked else 0.0
        with suppress(CrucibleError), session.connect(at_most_s=0.0) as client:  # else whoever comes next asks
            found += follow_ingestions(client, session.store, at_most_s=at_most_s)
        still_open = {one.mfid for one in session.store.open_ingestions()}
        session.journal.note_ingested(run_id, {one.mfid for one in found if one.status == "complete"} - still_open)
        mfids = waited()
        found += [one for one in session.store.open_ingestions() if one.mfid in mfids]
    if not found:
        return ()
    from crucible_lineage.registration.ingestion import in_words

    return tuple(in_words(one) for one in found if one.status != "complete")
