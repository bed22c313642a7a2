"""What a run asks of whatever runs its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a run in which all is fresh makes nothing
    from crucible_lineage.pipeline.job.job import Job
    from crucible_lineage.pipeline.job.materialize import Materialized

__all__ = ["Engine", "Running"]


class Running(Protocol):
    """A step under way."""

    def add_done_callback(self, callback: Callable[[object], None], /) -> None:
        """`callback` is called, in any thread, when the step has ended."""


class Engine(Protocol):
    """What runs steps: threads of this process, or Prefect.

    One that hands on what is made before it is delivered has an attribute `deliverer`, which is set before the first
    step is started. One that can get ready has a method `start_ahead`, which is told how many functions can be called
    to begin with.
    """

    def start(self, job: Job) -> Running:
        """The step has been handed over."""

    def result(self, running: object) -> Materialized:
        """The outcome of a step that has ended; raises what it raised."""

    def stop(self, run_id: str) -> bool:
        """Stop what can be stopped, and begin nothing more. False if its steps are not to be waited for."""
