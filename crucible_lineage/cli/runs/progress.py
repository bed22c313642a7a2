"""Progress of a run on stderr: a line for each finished step; on a terminal, a status line beneath.

Elsewhere a progress line is printed after a minute without other lines. At most four lines a second are printed,
however fast steps end.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import click

from crucible_lineage.amounts import time_text
from crucible_lineage.cli.printing import coloured, ignoring_closed_stderr, is_lively, terminal_width
from crucible_lineage.cli.working import TrafficMonitor
from crucible_lineage.errors import shortened
from crucible_lineage.lineage.labels import plain, plain_lines
from crucible_lineage.pipeline.job.progress import MADE, STARTED
from crucible_lineage.pipeline.run.result import (
    AWAY,
    DELIVERING,
    EXECUTED,
    FAILED,
    LEFT_OUT,
    PLANNED,
    QUEUED,
    REGISTERING,
    REUSED,
    SKIPPED,
    STOPPED,
    STOPPING,
    WAITING,
    StepEvent,
)
from crucible_lineage.pipeline.run.stopping import Stop

WORDS = {
    EXECUTED: "done",
    REUSED: "already there",
    FAILED: "FAILED",
    SKIPPED: "skipped",
    STOPPED: "stopped",
    LEFT_OUT: "left out",
}
COLOURS = {EXECUTED: "green", FAILED: "red", STOPPED: "yellow", SKIPPED: "yellow"}
MOST_LINES = 20  # for steps that were already there, skipped or left out; the others are counted
LINES_A_SECOND = 4
LIVELY_S, PLAIN_S = 0.5, 60.0  # between progress lines: on a terminal, and in a file


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
        self._lively = is_lively(sys.stderr) and not self.quiet
        self._lock = threading.RLock()
        self._finished = threading.Event()
        self._counts: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()  # steps that ended since the last line
        self._printed_at = -1.0
        self._text = "looking for existing results"
        self._delivering = ""
        self._estimate = RemainingTime(jobs)
        self._moving = TrafficMonitor()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.stop.on_signals())
        if self.verbose:
            from crucible_lineage.pipeline.logs import listening_to_steps  # only for --verbose

            self._stack.enter_context(listening_to_steps(self.hear))
        if not self.quiet:
            threading.Thread(target=self._keep_showing, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._finished.set()
        with self._lock:
            self._print_pending()
            self._clear()
        hidden = {outcome: count - MOST_LINES for outcome, count in self._counts.items() if _is_hidden(outcome, count)}
        if hidden and not self.quiet:
            text = ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in hidden.items())
            with ignoring_closed_stderr():
                click.echo(f"  ... and {text}", err=True)

    def listen(self, event: StepEvent) -> None:
        """Show what happened to a step."""
        with self._lock:
            if event.outcome == PLANNED:
                self._estimate.plan(event.todo)
            elif event.outcome == REGISTERING:
                self._text = event.detail
            elif event.outcome == DELIVERING:
                self._delivering = event.detail
            elif event.outcome == WAITING:
                if not self.silent:
                    self._print(plain(f"  {event.step:{self.width}}  not delivered  {event.detail}"))
            elif event.outcome in (STOPPING, AWAY):
                if not self.silent:
                    self._print(plain_lines(event.detail))
            elif event.outcome in (QUEUED, STARTED, MADE):
                self._estimate.moved(event.step, event.outcome)
            else:
                self._estimate.ended(event.step, event.outcome, event.seconds)
                self._ended(event)

    def hear(self, step: str, line: str) -> None:
        """Show what a step prints."""
        with self._lock:
            self._print(f"  {coloured(plain(step), 'cyan', sys.stderr)} | {line}")

    def _ended(self, event: StepEvent) -> None:
        self._counts[event.outcome] += 1
        if self.silent or (self.quiet and event.outcome != FAILED):
            return
        if _is_hidden(event.outcome, self._counts[event.outcome]):
            return
        if time.monotonic() - self._printed_at < 1 / LINES_A_SECOND and event.outcome != FAILED:
            self._pending[event.outcome] += 1
            self._last_event = event
            return
        if self._pending and event.outcome != FAILED:  # one line for all of them, including this one
            self._pending[event.outcome] += 1
            self._print_pending()
            return
        self._print_pending()
        self._print_step(event)

    def _print_step(self, event: StepEvent) -> None:
        seconds = f" in {time_text(event.seconds)}" if event.seconds is not None else ""
        word = WORDS[event.outcome]
        if event.outcome in COLOURS:
            word = coloured(word, COLOURS[event.outcome], sys.stderr)
        detail = "" if event.outcome == FAILED else f"  {event.detail}"  # the summary says why
        self._print(f"  {plain(event.step):{self.width}}  {word}{seconds}{plain(detail)}")

    def _print_pending(self) -> None:
        """Print the steps that ended too fast for a line each."""
        if self._pending.total() == 1:
            self._pending.clear()
            self._print_step(self._last_event)
        elif self._pending:
            text = ", ".join(f"{count} more {WORDS[outcome]}" for outcome, count in self._pending.items())
            self._pending.clear()
            self._print(f"  {text}")

    def _print(self, line: str) -> None:
        """Print a line above the status line."""
        self._printed_at = time.monotonic()
        self._clear()
        with ignoring_closed_stderr():
            click.echo(line, err=True, color=True if self._lively else None)
        self._show()

    def _keep_showing(self) -> None:
        """Update the status line regularly. Runs in a thread."""
        while not self._finished.wait(LIVELY_S if self._lively else 1.0):
            with self._lock:
                if self._pending and time.monotonic() - self._printed_at >= 1 / LINES_A_SECOND:
                    self._print_pending()
                elif self._lively:
                    self._show()
                elif time.monotonic() - max(self._printed_at, self._estimate.began) >= PLAIN_S:
                    self._print(f"  {self._status()}")

    def _status(self) -> str:
        parts = self._estimate.text() or self._text, self._delivering, self._moving.text()
        return plain(", ".join(filter(None, parts)))

    def _show(self) -> None:
        if self._lively and not self._finished.is_set():
            line = self._status()
            width = terminal_width() - 1
            shown = line if len(line) <= width else line[: max(0, width - 1)] + "…"
            with ignoring_closed_stderr():
                sys.stderr.write(f"\r\x1b[2K{coloured(shown, 'cyan', sys.stderr)}")
                sys.stderr.flush()

    def _clear(self) -> None:
        if self._lively:
            with ignoring_closed_stderr():
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()


def _is_hidden(outcome: str, count: int) -> bool:
    return count > MOST_LINES and outcome not in (EXECUTED, FAILED, STOPPED)


MOST_NAMED = 3  # running steps; the others are counted
FEWEST = 3  # finished steps needed for an estimate
RATE_S = 60.0  # window of the rate


class RemainingTime:
    """Estimates when a run ends. `jobs` is the number of parallel steps; if 0, the most that were seen running."""

    def __init__(self, jobs: int = 0) -> None:
        self.began = time.monotonic()
        self._jobs = jobs
        self._expected: dict[str, float | None] = {}  # seconds of each step that has not ended
        self._total = 0
        self._waiting: set[str] = set()
        self._running: dict[str, float] = {}
        self._registering: set[str] = set()
        self._took: list[float] = []
        self._ends: list[float] = []
        self._most = 1

    def plan(self, todo: Mapping[str, float | None]) -> None:
        """Start an estimate for these steps, each with the seconds that it took before."""
        self._expected |= todo
        self._total = len(todo)

    def moved(self, step: str, phase: str) -> None:
        """Note that a step was queued, started or made."""
        if phase == QUEUED:
            self._waiting.add(step)
        elif phase == STARTED:
            self._waiting.discard(step)
            self._running.setdefault(step, time.monotonic())
            self._most = max(self._most, len(self._running))
        elif phase == MADE:
            self._registering.add(step)

    def ended(self, step: str, outcome: str, seconds: float | None) -> None:
        """Note that a step has ended after `seconds`."""
        for group in (self._waiting, self._registering):
            group.discard(step)
        self._running.pop(step, None)
        if self._expected.pop(step, self) is self or outcome not in (EXECUTED, REUSED):
            return
        self._ends.append(time.monotonic())
        if seconds is not None:
            self._took.append(seconds)

    def text(self) -> str:
        """Return `12/95 (12 %), running a 3 s, b 1 s, 4.0/min, about 12 min left`; empty before the plan is known."""
        if not self._total:
            return ""
        done = self._total - len(self._expected)
        parts = [f"{done}/{self._total} ({100 * done // self._total} %)", self._now()]
        recent = [end for end in self._ends if end > time.monotonic() - RATE_S]
        if len(recent) >= FEWEST:
            window_s = max(1.0, min(RATE_S, time.monotonic() - self.began))
            parts.append(f"{60 * len(recent) / window_s:.1f}/min")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {time_text(round(left))} left")
        return ", ".join(filter(None, parts))

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

    def _now(self) -> str:
        now = time.monotonic()
        named = sorted(self._running.items(), key=lambda item: item[1])
        shown = [
            f"{step} {time_text(round(now - began))}{' (registering)' if step in self._registering else ''}"
            for step, began in named
        ]
        if not shown:
            return f"{len(self._waiting)} queued" if self._waiting else ""
        return f"running {shortened(shown, MOST_NAMED)}"
