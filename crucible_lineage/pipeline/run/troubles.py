"""What a run hears from its deliverers: told once for each reason; a step whose result is refused has failed."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TYPE_CHECKING

from crucible_lineage.pipeline.run.outcomes import Outcomes, ids_of
from crucible_lineage.pipeline.run.result import FAILED, WAITING, Listener, StepEvent

if TYPE_CHECKING:  # a run in which all is fresh delivers nothing
    from crucible_lineage.registration.delivery.desk import Trouble

__all__ = ["Troubles"]


class Troubles:
    """What could not be delivered so far. `stops` says that the service refuses whatever is sent."""

    def __init__(self, outcomes: Outcomes, listener: Listener, wake: Callable[[], None]) -> None:
        self.stops = False
        self._outcomes = outcomes
        self._listener = listener
        self._wake = wake
        self._heard: queue.SimpleQueue[Trouble] = queue.SimpleQueue()
        self._told: set[str] = set()

    def hear(self, trouble: Trouble) -> None:
        """It is taken soon. Called in a deliverer's thread."""
        self._heard.put(trouble)
        self._wake()

    def take(self) -> None:
        """What was heard is told, and the steps whose results are refused have failed."""
        while not self._heard.empty():
            trouble = self._heard.get()
            if trouble.refused:
                self._fail(trouble)
            self.stops = self.stops or trouble.stops
            if trouble.error not in self._told:
                self._told.add(trouble.error)
                self._listener(StepEvent(trouble.made.step, WAITING, trouble.error))

    def _fail(self, trouble: Trouble) -> None:
        outcomes, refused = self._outcomes, set(trouble.made.mfids)
        for name in [name for name, outputs in outcomes.results.items() if refused & set(ids_of(outputs).values())]:
            outcomes.logs |= {name: trouble.log} if trouble.log else {}
            self._told.add(trouble.error)
            datasets = ids_of(outcomes.results.pop(name))
            outcomes.end(name, FAILED, datasets, f"made, and not registered: {trouble.error}")
