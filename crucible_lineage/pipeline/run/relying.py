"""What a run relies on holds from then on: at once if it is at Crucible, else once it has arrived there."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from crucible_lineage.pipeline.run.currency import Reliance, Relied
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.outbox import Outbox

__all__ = ["Relying"]


class Relying:
    """The reliance of one run, and what of it has to wait."""

    def __init__(self, reliance: Reliance, outbox: Outbox) -> None:
        self._reliance = reliance
        self._outbox = outbox
        self._later: list[Relied] = []

    def rely(self, relied: list[Relied]) -> dict[str, str]:
        """They hold from now on; why that failed, by instance. Of what is not at Crucible yet it is noted later."""
        later = [one for one in relied if self._is_on_its_way(one)] if self._outbox.all() else []
        self._later += later
        return self._reliance.rely([one for one in relied if one not in later] if later else relied)

    def rely_on_arrived(self, wanted: Collection[str]) -> dict[str, str]:
        """The same of what had to wait, as far as these instances are still wanted."""
        relied, self._later = self._later, []
        return self.rely([one for one in relied if one.instance.name in wanted])

    def waits(self, datasets: Iterable[DatasetRef]) -> bool:
        """True if one of them is not at Crucible yet."""
        return bool(self._outbox.all()) and any(self._outbox.find(dataset.mfid) for dataset in datasets)

    def _is_on_its_way(self, relied: Relied) -> bool:
        return self.waits((*relied.results.values(), *(part.dataset for part in relied.used)))
