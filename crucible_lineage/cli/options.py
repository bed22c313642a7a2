"""Options that several commands share, and what errors look like on the command line."""

from __future__ import annotations

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click

from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.session import Session
from crucible_lineage.settings import resolve_settings

__all__ = [
    "crucible_options",
    "json_option",
    "next_command",
    "only_json",
    "open_session",
    "print_json",
    "reports_errors",
]

F = TypeVar("F", bound=Callable[..., Any])

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130


def crucible_options(command: F) -> F:
    """`--data`, `--url` and `--api-key`: which Crucible, and where local files go."""
    for option in (
        click.option("--api-key", metavar="KEY", help="The key for --url (or CRUCIBLE_API_KEY)."),
        click.option("--url", metavar="URL", help="Address of Crucible (or CRUCIBLE_API_URL)."),
        click.option(
            "--data",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Data folder; without --url, the embedded Crucible in it.",
        ),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")


def open_session(data: Path | None, url: str | None, api_key: str | None) -> Session:
    """The session that these options ask for."""
    return Session(resolve_settings(data=data, api_url=url, api_key=api_key))


def next_command(*words: str) -> str:
    """A command to type next, ready to paste: it asks the Crucible that this one was told to ask. No key is in it."""
    given = click.get_current_context().params
    where = [part for name in ("data", "url") if given.get(name) for part in (f"--{name}", str(given[name]))]
    return shlex.join(["crucible-lineage", *words, *where])


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def only_json(as_json: bool) -> Iterator[None]:
    """With `as_json`, what steps and the processes that they start print in this block goes to stderr."""
    if not as_json:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def reports_errors(command: F) -> F:
    """Errors of the library become lines on stderr and an exit code: 2 for bad input, 1 for failure."""

    @functools.wraps(command)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except InputError as error:
            for finding in error.findings:
                click.echo(f"error: {finding}", err=True)
            click.echo("nothing was changed", err=True)
            sys.exit(BAD_INPUT)
        except LineageError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(FAILURE)
        except KeyboardInterrupt:
            click.echo("stopped; what was finished stays, run the same command again to go on", err=True)
            sys.exit(INTERRUPTED)

    return reporting  # type: ignore[return-value]
