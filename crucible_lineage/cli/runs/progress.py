"""What a run shows while it works, on stderr: a line for each step made; on a terminal what runs, with counts."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self

import click

from crucible_lineage.pipeline.run.result import EXECUTED, FAILED, LEFT_OUT, REUSED, SKIPPED, STARTED, StepEvent

__all__ = ["Progress"]

WORDS = {EXECUTED: "done", REUSED: "there already", FAILED: "FAILED", SKIPPED: "skipped", LEFT_OUT: "left out"}
MOST_LINES = 20  # of steps that were there already, skipped or left out; the others are counted


class Progress:
    """Hears of steps and shows them. `quiet` shows nothing."""

    def __init__(self, steps: list[str], *, quiet: bool = False) -> None:
        self.width = max(map(len, steps), default=0)
        self.quiet = quiet
        self._started: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._console: Any = None
        self._escape: Any = None
        self._status: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            # Only a person who is looking needs rich.
            from rich.console import Console
            from rich.markup import escape

            self._escape = escape  # names of instances have brackets, which are no markup
            self._console = Console(stderr=True)
            self._status = self._console.status("looking what is there")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()
        hidden = {outcome: count - MOST_LINES for outcome, count in self._counts.items() if _is_hidden(outcome, count)}
        if hidden and not self.quiet:
            text = ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in hidden.items())
            click.echo(f"  ... and {text}", err=True)

    def listen(self, event: StepEvent) -> None:
        """Show what happened to a step."""
        if self.quiet:
            return
        if event.outcome == STARTED:
            self._started[event.step] = time.monotonic()
            if not self._status:
                self._say(f"  {event.step:{self.width}}  started")
        else:
            self._ended(event)
        if self._status:
            self._status.update(self._escape(self._summary()))

    def _ended(self, event: StepEvent) -> None:
        self._counts[event.outcome] += 1
        began = self._started.pop(event.step, None)
        if _is_hidden(event.outcome, self._counts[event.outcome]):
            return
        seconds = f" in {time.monotonic() - began:.1f} s" if began is not None else ""
        self._say(f"  {event.step:{self.width}}  {WORDS[event.outcome]}{seconds}  {event.detail}")

    def _say(self, line: str) -> None:
        """The line, above what is shown of the steps that run."""
        if self._status:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=True)

    def _summary(self) -> str:
        counts = ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in self._counts.items())
        running = list(self._started)
        more = f" and {len(running) - 3} more" if len(running) > 3 else ""
        now = f"running {', '.join(running[:3])}{more}" if running else "registering"
        return f"{now} ({counts})" if counts else now


def _is_hidden(outcome: str, count: int) -> bool:
    return count > MOST_LINES and outcome not in (EXECUTED, FAILED)
