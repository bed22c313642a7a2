"""Options that several commands share: the Crucible to use, JSON output, and the session that they open."""

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
    """Path of a folder. Empty text is refused: it would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":  # an unset variable
            self.fail("it is empty; name a folder", param, ctx)
        return super().convert(value, param, ctx)


def crucible_options(command: F) -> F:
    """Add `--data`, `--url` and `--api-key`, which `open_session` reads."""
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
_KEPT: dict[str, Any] = {"expose_value": False, "callback": _keep}  # not passed to commands as arguments


def option_value(name: str) -> Any:
    """Return the value of the option `data`, `url` or `api_key`; None if it was omitted."""
    return click.get_current_context().meta.get(f"{_META}.{name}")


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def open_session(patience_s: float | None = None) -> Session:
    """Open the session that the command's `--data`, `--url` and `--api-key` describe."""
    settings = resolve_settings(data=option_value("data"), api_url=option_value("url"), api_key=option_value("api_key"))
    session = Session(settings, patience_s=patience_s)
    session.remake = _remake
    return session


def _remake(session: Session, mfid: str, sha256: str) -> Path:
    from crucible_lineage.remake.healing import remade_file  # rarely needed

    return remade_file(session, mfid, sha256)


def dataset_id(session: Session, text: str, projects: Sequence[str] = ()) -> str:
    """Return the id of a dataset that is named by its id, a unique part of it as printed, or its name."""
    if is_mfid(text):
        return text
    from crucible_lineage.queries.catalogue.reference import find_mfid  # not needed for a full id

    return find_mfid(session, text, projects)


def chosen_projects(session: Session, projects: Sequence[str]) -> list[str]:
    """Return the given projects, or else the only visible one or the one that this folder's pipelines name.

    Raises InputError if there are none or several.
    """
    from crucible_lineage.queries.catalogue.reference import find_project  # not needed if a project is named

    return list(projects) or [find_project(session, None)]


def announce(session: Session) -> None:
    """Print which Crucible is used, unless --json was given."""
    if not click.get_current_context().params.get("as_json"):
        click.echo(session.settings.describe())


def next_command(*words: str) -> str:
    """Return a command to run next, ready to paste, for the same Crucible. It contains no key."""
    options = [
        part for name in ("data", "url") if option_value(name) for part in (f"--{name}", str(option_value(name)))
    ]
    return shlex.join(["crucible-lineage", *words, *options])


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False), file=result_stream())


def read_fields(values: Sequence[str]) -> dict[str, str]:
    """Return the fields and values of `--for FIELD=VALUE`."""
    fields = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(f"--for {text}: write FIELD=VALUE, as in --for instrument='Raman 1'")
        fields[name.strip()] = value.strip()
    return fields
