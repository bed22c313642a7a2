"""Options that several commands share: the Crucible to use, JSON output, and the session that they open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click

from crucible_lineage.ask.answer import META, option_value
from crucible_lineage.ask.question import option
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.text.times import seconds_in


class DataFolderType(click.Path):
    """Path of a folder. Empty text is refused: it would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":  # an unset variable
            self.fail("it is empty; name a folder", param, ctx)
        return super().convert(value, param, ctx)


DATA_FOLDER = DataFolderType(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    ctx.meta[f"{META}.{parameter.name}"] = value


_KEPT: dict[str, Any] = {"expose_value": False, "callback": _keep}  # not passed to commands as arguments
CRUCIBLE = (  # of each command that opens a session
    click.Option(
        ["--data"],
        type=DATA_FOLDER,
        metavar="DIR",
        help="Data folder; without --url, the embedded Crucible in it.",
        **_KEPT,
    ),
    click.Option(["--url"], metavar="URL", help="Address of Crucible (or CRUCIBLE_API_URL).", **_KEPT),
    click.Option(["--api-key"], metavar="KEY", help="The key for --url (or CRUCIBLE_API_KEY).", **_KEPT),
)
JSON = click.Option(["--json"], is_flag=True, help="Print one JSON object and nothing else.", **_KEPT)
CSV = click.Option(["--csv", "as_csv"], is_flag=True, help="Print CSV with a header line.")


def chosen_settings() -> Settings:
    """Return the settings that the command's `--data`, `--url` and `--api-key` describe."""
    return resolve_settings(data=option_value("data"), api_url=option_value("url"), api_key=option_value("api_key"))


def data_folder() -> Path:
    """Return the folder that `--data` names, by default the user's."""
    return (option_value("data") or default_data_folder()).expanduser().absolute()


Jobs = Annotated[int, option("", kind=click.IntRange(1, 256))]


def wants_json() -> bool:
    """Return whether `--json` was given."""
    return bool(option_value("json"))


class _Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or a number with a unit, from s to w."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return seconds_in(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


Patience = Annotated[
    float,
    option(
        "How long to wait for Crucible if it is away, at the start (if necessary) and at the end; 0: not at all. "
        "Results then wait on this machine.",
        kind=_Duration(),
    ),
]
PATIENCE: Any = "3m"


def open_session(patience_s: float | None = None) -> Session:
    """Open the session that the command's `--data`, `--url` and `--api-key` describe."""
    return Session(chosen_settings(), patience_s=patience_s)


def announce(session: Session) -> None:
    """Print which Crucible is used, unless --json was given."""
    if not wants_json():
        click.echo(session.settings.describe())
