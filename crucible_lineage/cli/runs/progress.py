"""Progress of a run on stderr: a line for each finished step; on a terminal, a status line beneath.

Elsewhere a line a minute says how far it is, when nothing else has been said. There are four lines a second at most,
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

from crucible_lineage.cli.printing import coloured, is_lively, terminal_width, whoever_reads
from crucible_lineage.cli.working import TrafficMonitor
from crucible_lineage.pipeline.run.result import (
    AWAY,
    DELIVERING,
    EXECUTED,
    FAILED,
    LEFT_OUT,
    MADE,
    PLANNED,
    QUEUED,
    REGISTERING,
    REUSED,
    SKIPPED,
    STARTED,
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
MOST_LINES = 20  # of steps that were there already, skipped or left out; the others are counted
LINES_A_SECOND = 4
LIVELY_S, PLAIN_S = 0.5, 60.0  # how often it is shown how far it is: on a terminal, and in a file


class Progress:
    """Hears of steps and shows them. `stop` is asked for by Ctrl-C and SIGTERM meanwhile.

    `quiet` shows nothing but what failed, `silent` nothing at all; `verbose` also what steps print. `jobs` is how many
    run at once, as far as that is known.
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
        self._over = threading.Event()
        self._counts: Counter[str] = Counter()
        self._unsaid: Counter[str] = Counter()  # since the last line
        self._said_at = -1.0
        self._text = "looking for existing results"
        self._delivering = ""
        self._estimate = RemainingTime(jobs)
        self._moving = TrafficMonitor()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.stop.on_signals())
        if self.verbose:
            from crucible_lineage.pipeline.logs import listening_to_steps  # a run that is fresh prints nothing

            self._stack.enter_context(listening_to_steps(self.hear))
        if not self.quiet:
            threading.Thread(target=self._keep_showing, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._over.set()
        with self._lock:
            self._say_unsaid()
            self._clear()
        hidden = {outcome: count - MOST_LINES for outcome, count in self._counts.items() if _is_hidden(outcome, count)}
        if hidden and not self.quiet:
            text = ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in hidden.items())
            with whoever_reads():
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
                    self._say(f"  {event.step:{self.width}}  not delivered  {event.detail}")
            elif event.outcome in (STOPPING, AWAY):
                if not self.silent:
                    self._say(event.detail)
            elif event.outcome in (QUEUED, STARTED, MADE):
                self._estimate.moved(event.step, event.outcome)
            else:
                self._estimate.ended(event.step, event.outcome, event.seconds)
                self._ended(event)

    def hear(self, step: str, line: str) -> None:
        """Show what a step prints."""
        with self._lock:
            self._say(f"  {coloured(step, 'cyan', sys.stderr)} | {line}")

    def _ended(self, event: StepEvent) -> None:
        self._counts[event.outcome] += 1
        if self.silent or (self.quiet and event.outcome != FAILED):
            return
        if _is_hidden(event.outcome, self._counts[event.outcome]):
            return
        if time.monotonic() - self._said_at < 1 / LINES_A_SECOND and event.outcome != FAILED:
            self._unsaid[event.outcome] += 1
            self._last = event
            return
        if self._unsaid and event.outcome != FAILED:  # one line for all of them, this one included
            self._unsaid[event.outcome] += 1
            self._say_unsaid()
            return
        self._say_unsaid()
        self._say_ended(event)

    def _say_ended(self, event: StepEvent) -> None:
        seconds = f" in {duration(event.seconds)}" if event.seconds is not None else ""
        word = WORDS[event.outcome]
        if event.outcome in COLOURS:
            word = coloured(word, COLOURS[event.outcome], sys.stderr)
        detail = "" if event.outcome == FAILED else f"  {event.detail}"  # the summary says why
        self._say(f"  {event.step:{self.width}}  {word}{seconds}{detail}")

    def _say_unsaid(self) -> None:
        """The steps that ended too fast for a line of their own."""
        if self._unsaid.total() == 1:
            self._unsaid.clear()
            self._say_ended(self._last)
        elif self._unsaid:
            text = ", ".join(f"{count} more {WORDS[outcome]}" for outcome, count in self._unsaid.items())
            self._unsaid.clear()
            self._say(f"  {text}")

    def _say(self, line: str) -> None:
        """The line, above what is shown of how far it is."""
        self._said_at = time.monotonic()
        self._clear()
        with whoever_reads():
            click.echo(line, err=True, color=True if self._lively else None)
        self._show()

    def _keep_showing(self) -> None:
        """In a thread: how far it is, again and again."""
        while not self._over.wait(LIVELY_S if self._lively else 1.0):
            with self._lock:
                if self._unsaid and time.monotonic() - self._said_at >= 1 / LINES_A_SECOND:
                    self._say_unsaid()
                elif self._lively:
                    self._show()
                elif time.monotonic() - max(self._said_at, self._estimate.began) >= PLAIN_S:
                    self._say(f"  {self._how_far()}")

    def _how_far(self) -> str:
        parts = self._estimate.text() or self._text, self._delivering, self._moving.text()
        return ", ".join(filter(None, parts))

    def _show(self) -> None:
        if self._lively and not self._over.is_set():
            line = self._how_far()
            width = terminal_width() - 1
            shown = line if len(line) <= width else line[: max(0, width - 1)] + "…"
            with whoever_reads():
                sys.stderr.write(f"\r\x1b[2K{coloured(shown, 'cyan', sys.stderr)}")
                sys.stderr.flush()

    def _clear(self) -> None:
        if self._lively:
            with whoever_reads():
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()


def duration(seconds: float) -> str:
    """A time as people say it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _is_hidden(outcome: str, count: int) -> bool:
    return count > MOST_LINES and outcome not in (EXECUTED, FAILED, STOPPED)


MOST_NAMED = 3  # steps that run; the others are counted
FEWEST = 3  # steps that have been made, before what they took says anything of the others
RATE_S = 60.0  # steps that ended within it are the rate


class RemainingTime:
    """Counts the steps of a run. `jobs` is how many run at once; if that is not known, as many as are seen to."""

    def __init__(self, jobs: int = 0) -> None:
        self.began = time.monotonic()
        self._jobs = jobs
        self._expected: dict[str, float | None] = {}  # of those that have not ended
        self._total = 0
        self._waiting: set[str] = set()
        self._running: dict[str, float] = {}
        self._registering: set[str] = set()
        self._took: list[float] = []
        self._ends: list[float] = []
        self._most = 1

    def plan(self, todo: Mapping[str, float | None]) -> None:
        """Start an estimate for these steps, each with the time that it took before."""
        self._expected |= todo
        self._total = len(todo)

    def moved(self, step: str, phase: str) -> None:
        """The step was handed over, has begun, or is made."""
        if phase == QUEUED:
            self._waiting.add(step)
        elif phase == STARTED:
            self._waiting.discard(step)
            self._running.setdefault(step, time.monotonic())
            self._most = max(self._most, len(self._running))
        elif phase == MADE:
            self._registering.add(step)

    def ended(self, step: str, outcome: str, seconds: float | None) -> None:
        """The step has ended, after so long."""
        for group in (self._waiting, self._registering):
            group.discard(step)
        self._running.pop(step, None)
        if self._expected.pop(step, self) is self or outcome not in (EXECUTED, REUSED):
            return
        self._ends.append(time.monotonic())
        if seconds is not None:
            self._took.append(seconds)

    def text(self) -> str:
        """`12/95 (12 %), running a 3 s, b 1 s, 4.0/min, about 12 min left`; empty before the plan is known."""
        if not self._total:
            return ""
        done = self._total - len(self._expected)
        parts = [f"{done}/{self._total} ({100 * done // self._total} %)", self._now()]
        recent = [end for end in self._ends if end > time.monotonic() - RATE_S]
        if len(recent) >= FEWEST:
            over = max(1.0, min(RATE_S, time.monotonic() - self.began))
            parts.append(f"{60 * len(recent) / over:.1f}/min")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {_rough(left)} left")
        return ", ".join(filter(None, parts))

    def seconds_left(self) -> float | None:
        """Estimate the time for what is left, on as many jobs as there are; None while no step's time is known."""
        if not self._expected:
            return None
        mean = sum(self._took) / len(self._took) if len(self._took) >= FEWEST else None
        expected = {step: mean if known is None else known for step, known in self._expected.items()}
        if any(known is None for known in expected.values()):
            return None
        now = time.monotonic()
        gone = {step: now - began for step, began in self._running.items()}
        rest = [max(0.0, (known or 0.0) - gone.get(step, 0.0)) for step, known in expected.items()]
        return max(sum(rest) / max(1, self._jobs or self._most), max(rest, default=0.0))

    def _now(self) -> str:
        now = time.monotonic()
        named = sorted(self._running.items(), key=lambda item: item[1])
        shown = [
            f"{step} {_rough(now - began)}{' (registering)' if step in self._registering else ''}"
            for step, began in named[:MOST_NAMED]
        ]
        if not shown:
            return f"{len(self._waiting)} handed over" if self._waiting else ""
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        return f"running {', '.join(shown)}{more}"


def _rough(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
