"""Options that several commands share: which Crucible is asked, JSON instead of text; and the session they open."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from crucible_lineage.cli.printing import result_stream
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.session import Session
from crucible_lineage.settings import resolve_settings

F = TypeVar("F", bound=Callable[..., Any])


class DataFolderType(click.Path):
    """A folder that is named: an empty name would be the current one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":  # of a variable that is not set
            self.fail("it is empty; name a folder", param, ctx)
        return super().convert(value, param, ctx)


def crucible_options(command: F) -> F:
    """`--data`, `--url` and `--api-key`: which Crucible, and where local files go. `open_session` has them."""
    for option in (
        click.option("--api-key", metavar="KEY", help="The key for --url (or CRUCIBLE_API_KEY).", **_KEPT),
        click.option("--url", metavar="URL", help="Address of Crucible (or CRUCIBLE_API_URL).", **_KEPT),
        click.option(
            "--data",
            type=DataFolderType(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Data folder; without --url, the embedded Crucible in it.",
            **_KEPT,
        ),
    ):
        command = option(command)
    return command


def _keep(ctx: click.Context, option: click.Parameter, value: object) -> None:
    ctx.meta[f"{_META}.{option.name}"] = value


_META = "crucible_lineage"
_KEPT: dict[str, Any] = {"expose_value": False, "callback": _keep}  # no command has them as arguments


def given(name: str) -> Any:
    """Return the value of one of the options `data`, `url` and `api_key`; None if it was not given."""
    return click.get_current_context().meta.get(f"{_META}.{name}")


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")


def open_session(patience_s: float | None = None) -> Session:
    """The session that the command's `--data`, `--url` and `--api-key` ask for."""
    settings = resolve_settings(data=given("data"), api_url=given("url"), api_key=given("api_key"))
    session = Session(settings, patience_s=patience_s)
    session.remake = _remade
    return session


def _remade(session: Session, mfid: str, sha256: str) -> Path:
    from crucible_lineage.remake.healing import remade_file  # hardly ever is something lost

    return remade_file(session, mfid, sha256)


def dataset_id(session: Session, text: str, projects: Sequence[str] = ()) -> str:
    """The id of the dataset that is meant: by its id, a unique part of it as it is printed, or its name."""
    if is_mfid(text):
        return text
    from crucible_lineage.queries.catalogue.reference import find_mfid  # who gives the whole id does not wait for it

    return find_mfid(session, text, projects)


def chosen_projects(session: Session, projects: Sequence[str]) -> list[str]:
    """Return the projects; where none is named the only visible one, or the one that this folder's pipelines name.

    InputError if that is none, or several.
    """
    from crucible_lineage.queries.catalogue.reference import find_project  # who names one does not wait for it

    return list(projects) or [find_project(session, None)]


def announce(session: Session) -> None:
    """A line that says which Crucible is asked, unless only JSON was asked for."""
    if not click.get_current_context().params.get("as_json"):
        click.echo(session.settings.describe())


def next_command(*words: str) -> str:
    """A command to type next, ready to paste: it asks the Crucible that this one was told to ask. No key is in it."""
    where = [part for name in ("data", "url") if given(name) for part in (f"--{name}", str(given(name)))]
    return shlex.join(["crucible-lineage", *words, *where])


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False), file=result_stream())


def read_fields(given: Sequence[str]) -> dict[str, str]:
    """Return the fields and values of `--for FIELD=VALUE`."""
    named = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(f"--for {text}: write FIELD=VALUE, as in --for instrument='Raman 1'")
        named[name.strip()] = value.strip()
    return named
