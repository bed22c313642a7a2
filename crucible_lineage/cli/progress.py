"""What a run shows while it works: one line a step, on stderr; a spinner too where that is a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

import click

from crucible_lineage.pipeline.result import EXECUTED, FAILED, REUSED, SKIPPED, STARTED, StepEvent

__all__ = ["Progress"]

WORDS = {EXECUTED: "done", REUSED: "there already", FAILED: "FAILED", SKIPPED: "skipped"}


class Progress:
    """Hears of steps and shows them. `quiet` shows nothing."""

    def __init__(self, steps: list[str], *, quiet: bool = False) -> None:
        self.width = max(map(len, steps), default=0)
        self.quiet = quiet
        self._started: dict[str, float] = {}
        self._status: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            # Only a person who is looking needs rich.
            from rich.console import Console

            self._status = Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def listen(self, event: StepEvent) -> None:
        """Show what happened to a step."""
        if event.outcome == STARTED:
            self._started[event.step] = time.monotonic()
        if self.quiet:
            return
        if self._status:
            running = ", ".join(self._started) or "registering"
            self._status.update(f"running {running}")
        if event.outcome == STARTED:
            if not self._status:
                click.echo(f"  {event.step:{self.width}}  started", err=True)
            return
        began = self._started.pop(event.step, None)
        seconds = f" in {time.monotonic() - began:.1f} s" if began is not None else ""
        click.echo(f"  {event.step:{self.width}}  {WORDS[event.outcome]}{seconds}  {event.detail}", err=True)
