"""What a run relies on holds from then on: at once if it is at Crucible, else once it has arrived there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from crucible_lineage.pipeline.run.currency import Reliance, Relied
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.outbox import Outbox

if TYPE_CHECKING:  # a run in which all is fresh asks nobody
    from crucible_lineage.client import CrucibleClient

__all__ = ["Relying"]


class Relying:
    """The reliance of one run, and what of it has to wait."""

    def __init__(self, reliance: Reliance, outbox: Outbox, *, is_away: bool = False) -> None:
        self._reliance = reliance
        self._outbox = outbox
        self._later: list[Relied] = []
        self._is_away = is_away
        self.client: CrucibleClient | None = None  # one that gives up soon, while steps are being made

    def rely(self, relied: list[Relied]) -> dict[str, str]:
        """Make them hold from now on.

        Returns the reason by instance where that failed. Of what is not at Crucible yet it is noted later.
        So it is while steps are being made and the service is away.
        """
        ready = self._ready(relied)
        if self._is_away:
            self._later += ready
            return {}
        if self.client is None:
            return self._reliance.rely(ready)
        return self._reliance.rely(ready, self.client, self._note_away)

    def rely_on_arrived(self, wanted: Collection[str]) -> dict[str, str]:
        """The same of what had to wait, as far as these instances are still wanted. Now the service is waited for."""
        relied, self._later, self._is_away = self._later, [], False
        return self._reliance.rely(self._ready([one for one in relied if one.instance.name in wanted]))

    def _note_away(self, relied: Relied) -> None:
        self._is_away = True
        self._later.append(relied)

    def _ready(self, relied: list[Relied]) -> list[Relied]:
        """Return those that are at Crucible; keep the rest for later."""
        later = [one for one in relied if self._is_on_its_way(one)] if not self._outbox.is_empty else []
        self._later += later
        return [one for one in relied if one not in later] if later else relied

    def waits(self, datasets: Iterable[DatasetRef]) -> bool:
        """True if one of them is not at Crucible yet."""
        return not self._outbox.is_empty and any(self._outbox.find(dataset.mfid) for dataset in datasets)

    def _is_on_its_way(self, relied: Relied) -> bool:
        return self.waits((*relied.results.values(), *(part.dataset for part in relied.used)))
