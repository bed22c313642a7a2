"""Progress of a run on stderr: a line for each finished step; on a terminal, a status line beneath.

Elsewhere a progress line is printed after a minute without other lines.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import Self

from crucible_lineage.cli.printing import StatusLine, TrafficMonitor, coloured
from crucible_lineage.errors import shortened
from crucible_lineage.lineage.labels import plain, plain_lines
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.logs import listening_to_steps
from crucible_lineage.pipeline.run.result import StepEvent, Stop
from crucible_lineage.text.amounts import time_text

MOST_NAMED = 3  # running steps; the others are counted
MOST_LINES = 20  # of one outcome; later steps that took less than QUICK_S are counted, unless they failed
QUICK_S = 0.25
WORDS = {
    Outcome.EXECUTED: "done",
    Outcome.REUSED: "already there",
    Outcome.FAILED: "FAILED",
    Outcome.SKIPPED: "skipped",
    Outcome.STOPPED: "stopped",
    Outcome.LEFT_OUT: "left out",
}
COLOURS = {Outcome.EXECUTED: "green", Outcome.FAILED: "red", Outcome.STOPPED: "yellow", Outcome.SKIPPED: "yellow"}


class Progress:
    """Shows the events of a run. Ctrl-C and SIGTERM request `stop` meanwhile.

    `quiet` shows only failures, `silent` nothing; `verbose` also what steps print.
    """

    def __init__(self, steps: list[str], *, quiet: bool = False, silent: bool = False, verbose: bool = False) -> None:
        self.width = max(map(len, steps), default=0)
        self.quiet = quiet or silent
        self.silent = silent
        self.verbose = verbose and not silent
        self.stop = Stop()
        self._stack = ExitStack()
        self._counts: Counter[str] = Counter()
        self._hidden: Counter[Outcome] = Counter()
        self._looking = "looking for existing results"
        self._delivering = ""
        self._todo: set[str] = set()
        self._total, self._began = 0, 0.0  # known once there is a plan
        self._running: dict[str, float] = {}
        self._moving = TrafficMonitor()
        self._line = StatusLine(self._text, is_shown=not self.quiet)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.stop.on_signals())
        if self.verbose:
            self._stack.enter_context(listening_to_steps(self.hear))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._line.end()
        if self._hidden and not self.quiet:
            text = ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in self._hidden.items())
            self._line.print_line(f"  ... and {text}")

    def listen(self, event: StepEvent) -> None:
        """Show what happened to a step."""
        with self._line.lock:
            if event.outcome == Outcome.PLANNED:
                self._todo |= set(event.todo)
                self._total, self._began = len(event.todo), time.monotonic()
            elif event.outcome == Outcome.REGISTERING:
                self._looking = event.detail
            elif event.outcome == Outcome.DELIVERING:
                self._delivering = event.detail
            elif event.outcome == Outcome.STARTED:
                self._running.setdefault(event.step, time.monotonic())
            elif event.outcome == Outcome.WAITING and not self.silent:
                self._line.print_line(plain(f"  {event.step:{self.width}}  not delivered  {event.detail}"))
            elif event.outcome in (Outcome.STOPPING, Outcome.AWAY) and not self.silent:
                self._line.print_line(plain_lines(event.detail))
            elif event.outcome in WORDS:
                self._running.pop(event.step, None)
                self._todo.discard(event.step)
                self._ended(event)

    def hear(self, step: str, line: str) -> None:
        """Show what a step prints."""
        self._line.print_line(f"  {coloured(plain(step), 'cyan', sys.stderr)} | {line}")

    def _ended(self, event: StepEvent) -> None:
        self._counts[event.outcome] += 1
        if self.silent or (self.quiet and event.outcome != Outcome.FAILED):
            return
        is_quick = event.outcome not in (Outcome.FAILED, Outcome.STOPPED) and (event.seconds or 0.0) < QUICK_S
        if is_quick and self._counts[event.outcome] > MOST_LINES:
            self._hidden[event.outcome] += 1
            return
        seconds = f" in {time_text(event.seconds)}" if event.seconds is not None else ""
        word = WORDS[event.outcome]
        if event.outcome in COLOURS:
            word = coloured(word, COLOURS[event.outcome], sys.stderr)
        detail = "" if event.outcome == Outcome.FAILED else f"  {event.detail}"  # the summary says why
        self._line.print_line(f"  {plain(event.step):{self.width}}  {word}{seconds}{plain(detail)}")

    def _text(self) -> str:
        """Return `12/95 (12 %), about 5 min left, running a 3 s, b 1 s`, what is delivered, and the traffic."""
        parts = self._steps_text() or self._looking, self._delivering, self._moving.text()
        return ", ".join(filter(None, parts))

    def _steps_text(self) -> str:
        if not self._total:
            return ""
        done, now = self._total - len(self._todo), time.monotonic()
        parts = [f"{done}/{self._total} ({100 * done // self._total} %)"]
        if done and self._todo:  # by the pace of this run
            parts.append(f"about {time_text(round(len(self._todo) * (now - self._began) / done))} left")
        longest = sorted(self._running.items(), key=lambda item: item[1])
        if running := [f"{step} {time_text(round(now - began))}" for step, began in longest]:
            parts.append(f"running {shortened(running, MOST_NAMED)}")
        return ", ".join(parts)
