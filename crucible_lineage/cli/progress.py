"""Progress of a run on stderr: a line for each finished step; on a terminal, a status line beneath.

Elsewhere a progress line is printed after a minute without other lines.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from crucible_lineage.amounts import time_text
from crucible_lineage.cli.printing import coloured
from crucible_lineage.cli.working import StatusLine, TrafficMonitor
from crucible_lineage.errors import shortened
from crucible_lineage.lineage.labels import plain, plain_lines
from crucible_lineage.pipeline.job.progress import STARTED
from crucible_lineage.pipeline.run.result import (
    AWAY,
    DELIVERING,
    EXECUTED,
    FAILED,
    LEFT_OUT,
    PLANNED,
    REGISTERING,
    REUSED,
    SKIPPED,
    STOPPED,
    STOPPING,
    WAITING,
    StepEvent,
    Stop,
)

MOST_NAMED = 3  # running steps; the others are counted
FEWEST = 3  # finished steps needed for an estimate
MOST_LINES = 20  # of one outcome; later steps that took less than QUICK_S are counted, unless they failed
QUICK_S = 0.25
WORDS = {
    EXECUTED: "done",
    REUSED: "already there",
    FAILED: "FAILED",
    SKIPPED: "skipped",
    STOPPED: "stopped",
    LEFT_OUT: "left out",
}
COLOURS = {EXECUTED: "green", FAILED: "red", STOPPED: "yellow", SKIPPED: "yellow"}


class Progress:
    """Shows the events of a run. Ctrl-C and SIGTERM request `stop` meanwhile.

    `quiet` shows only failures, `silent` nothing; `verbose` also what steps print. `jobs` is the number of parallel
    steps, 0 if unknown.
    """

    def __init__(
        self, steps: list[str], *, quiet: bool = False, silent: bool = False, verbose: bool = False, jobs: int = 0
    ) -> None:
        self.width = max(map(len, steps), default=0)
        self.quiet = quiet or silent
        self.silent = silent
        self.verbose = verbose and not silent
        self.stop = Stop()
        self._stack = ExitStack()
        self._counts: Counter[str] = Counter()
        self._hidden: Counter[str] = Counter()
        self._looking = "looking for existing results"
        self._delivering = ""
        self._estimate = RemainingTime(jobs)
        self._moving = TrafficMonitor()
        self._line = StatusLine(self._text, is_shown=not self.quiet)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.stop.on_signals())
        if self.verbose:
            from crucible_lineage.pipeline.logs import listening_to_steps  # only for --verbose

            self._stack.enter_context(listening_to_steps(self.hear))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._line.end()
        if self._hidden and not self.quiet:
            text = ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in self._hidden.items())
            self._line.print_line(f"  ... and {text}")

    def listen(self, event: StepEvent) -> None:
        """Show what happened to a step."""
        with self._line.lock:
            if event.outcome == PLANNED:
                self._estimate.plan(event.todo)
            elif event.outcome == REGISTERING:
                self._looking = event.detail
            elif event.outcome == DELIVERING:
                self._delivering = event.detail
            elif event.outcome == STARTED:
                self._estimate.started(event.step)
            elif event.outcome == WAITING and not self.silent:
                self._line.print_line(plain(f"  {event.step:{self.width}}  not delivered  {event.detail}"))
            elif event.outcome in (STOPPING, AWAY) and not self.silent:
                self._line.print_line(plain_lines(event.detail))
            elif event.outcome in WORDS:
                self._estimate.ended(event.step, event.outcome, event.seconds)
                self._ended(event)

    def hear(self, step: str, line: str) -> None:
        """Show what a step prints."""
        self._line.print_line(f"  {coloured(plain(step), 'cyan', sys.stderr)} | {line}")

    def _ended(self, event: StepEvent) -> None:
        self._counts[event.outcome] += 1
        if self.silent or (self.quiet and event.outcome != FAILED):
            return
        is_quick = event.outcome not in (FAILED, STOPPED) and (event.seconds or 0.0) < QUICK_S
        if is_quick and self._counts[event.outcome] > MOST_LINES:
            self._hidden[event.outcome] += 1
            return
        seconds = f" in {time_text(event.seconds)}" if event.seconds is not None else ""
        word = WORDS[event.outcome]
        if event.outcome in COLOURS:
            word = coloured(word, COLOURS[event.outcome], sys.stderr)
        detail = "" if event.outcome == FAILED else f"  {event.detail}"  # the summary says why
        self._line.print_line(f"  {plain(event.step):{self.width}}  {word}{seconds}{plain(detail)}")

    def _text(self) -> str:
        parts = self._estimate.text() or self._looking, self._delivering, self._moving.text()
        return ", ".join(filter(None, parts))


class RemainingTime:
    """Estimates when a run ends. `jobs` is the number of parallel steps; if 0, the most that were seen running."""

    def __init__(self, jobs: int = 0) -> None:
        self._jobs = jobs
        self._expected: dict[str, float | None] = {}  # seconds of each step that has not ended
        self._total = 0
        self._running: dict[str, float] = {}
        self._took: list[float] = []
        self._most = 1

    def plan(self, todo: Mapping[str, float | None]) -> None:
        """Start an estimate for these steps, each with the seconds that it took before."""
        self._expected |= todo
        self._total = len(todo)

    def started(self, step: str) -> None:
        """Note that a step was started."""
        self._running.setdefault(step, time.monotonic())
        self._most = max(self._most, len(self._running))

    def ended(self, step: str, outcome: str, seconds: float | None) -> None:
        """Note that a step has ended after `seconds`."""
        self._running.pop(step, None)
        was_expected = step in self._expected
        self._expected.pop(step, None)
        if was_expected and outcome in (EXECUTED, REUSED) and seconds is not None:
            self._took.append(seconds)

    def text(self) -> str:
        """Return `12/95 (12 %), running a 3 s, b 1 s, about 12 min left`; empty before the plan is known."""
        if not self._total:
            return ""
        done, now = self._total - len(self._expected), time.monotonic()
        parts = [f"{done}/{self._total} ({100 * done // self._total} %)"]
        longest = sorted(self._running.items(), key=lambda item: item[1])
        if running := [f"{step} {time_text(round(now - began))}" for step, began in longest]:
            parts.append(f"running {shortened(running, MOST_NAMED)}")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {time_text(round(left))} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Estimate the seconds for the remaining steps; None until the time of each is known."""
        if not self._expected:
            return None
        mean = sum(self._took) / len(self._took) if len(self._took) >= FEWEST else None
        expected = {step: mean if known is None else known for step, known in self._expected.items()}
        if any(known is None for known in expected.values()):
            return None
        now = time.monotonic()
        elapsed = {step: now - began for step, began in self._running.items()}
        rest = [max(0.0, (known or 0.0) - elapsed.get(step, 0.0)) for step, known in expected.items()]
        return max(sum(rest) / max(1, self._jobs or self._most), max(rest, default=0.0))
