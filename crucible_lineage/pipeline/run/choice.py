"""Which steps a run makes, and how long it waits for a Crucible that is away."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.bind.names import descendants, require_names

__all__ = ["Choice"]


@dataclass(frozen=True)
class Choice:
    """Which steps a run makes: all that are not fresh, unless said otherwise.

    `forced` ones are made again; with `only`, just these; with `from_`, these and all that depend on them. Without
    `keep_going` nothing more is started once a step has failed. At the end a Crucible that is away is waited for, for
    `patience_s` in which it does not come back.
    """

    forced: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    keep_going: bool = True
    patience_s: float = 180.0

    def steps(self, pipeline: BoundPipeline) -> Collection[str]:
        """The declared steps that may be made. InputError if a name is none."""
        require_names(pipeline, (*self.only, *self.from_))
        if not self.only and not self.from_:
            return pipeline.steps
        return set(self.only) | descendants(pipeline, self.from_)
