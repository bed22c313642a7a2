"""The command of each question, made from its signature; and the options that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import click

from crucible_lineage.ask.answer import META, Answer, option_value
from crucible_lineage.ask.question import (
    AFTER,
    BEFORE,
    COMMAND,
    Parameter,
    Question,
    find_question,
    option,
    question_of,
)
from crucible_lineage.cli.printing import ProgressDisplay, print_line, result_stream, wants_json, warn
from crucible_lineage.json_types import json_of
from crucible_lineage.lineage.labels import csv_text
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.text.masking import masked
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


def _duration(value: str) -> float:
    """Return the seconds of a length of time, with a unit or without."""
    try:
        return seconds_in(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}") from error


Patience = Annotated[
    float,
    option(
        "How long to wait for Crucible if it is away, at the start (if necessary) and at the end; 0: not at all. "
        "Results then wait on this machine.",
        metavar="TIME",
        kind=_duration,
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


def command_of(name: str) -> click.Command:
    """Return the command that asks a question."""
    return _command(find_question(name))


def act(
    name: str,
    group: click.Group | None = None,
    *,
    announced: str = "",
    has_crucible: bool = True,
    has_json: bool = True,
) -> Callable[[Callable[..., Answer | None]], click.Command]:
    """Make a function the command of this name, of the program or of a group: its docstring is the help.

    Its options follow from its signature. Those of a session are added with `has_crucible`, --json with `has_json`.
    """

    def declare(function: Callable[..., Answer | None]) -> click.Command:
        acted = question_of(name, function, announced=announced, doors=(COMMAND,))
        command = _command(acted, has_crucible=has_crucible, has_json=has_json)
        if group:
            group.add_command(command)
        return command

    return declare


def _command(question: Question, *, has_crucible: bool = True, has_json: bool = True) -> click.Command:
    parameters = [_parameter(parameter) for parameter in question.parameters_at(COMMAND)]
    command = click.Command(question.name, callback=lambda **given: _ask(question, **given), help=question.help)
    command.params = [
        *(parameter for parameter in parameters if isinstance(parameter, click.Argument)),
        *(CRUCIBLE if has_crucible else ()),
        *(parameter for parameter in parameters if isinstance(parameter, click.Option)),
        *([CSV] if question.is_table else ()),
        *([JSON] if has_json else ()),
    ]
    return command


def _parameter(parameter: Parameter) -> click.Parameter:
    param, kind = parameter.param, _kind(parameter)
    if param.is_argument:
        return click.Argument(
            [parameter.name], type=kind, required=parameter.is_required, metavar=param.metavar,
            nargs=-1 if parameter.is_list else 1,
            **({} if parameter.is_required or parameter.is_list else {"default": parameter.default}),
        )  # fmt: skip
    names = [*(param.flags or (parameter.flag,)), parameter.name]
    if parameter.type is bool:
        return click.Option(names, is_flag=True, default=parameter.default, help=param.help)
    is_shown = parameter.default not in (None, (), "") and not parameter.is_required
    return click.Option(
        names, type=kind, multiple=parameter.is_list, required=parameter.is_required, metavar=param.metavar,
        help=param.help, show_default=is_shown,
        **({} if parameter.is_required else {"default": parameter.default}),
    )  # fmt: skip


def _kind(parameter: Parameter) -> Any:
    if parameter.param.kind is not None:
        return parameter.param.kind
    if parameter.param.choices:
        return click.Choice(parameter.param.choices)
    if parameter.type is Path:
        is_folder = parameter.param.metavar == "DIR"
        return click.Path(
            parameter.param.exists, not is_folder, is_folder or not parameter.param.exists, path_type=Path
        )
    return parameter.type if parameter.param.least is None else click.IntRange(parameter.param.least)


def _ask(question: Question, *, as_csv: bool = False, **given: Any) -> None:
    """Ask, and print the answer on stdout."""
    question.require(question.named(given))
    with open_session(question.patience_s) if question.opens else nullcontext() as session:
        if session and question.announced == BEFORE and not as_csv:
            announce(session)
        with ProgressDisplay() if question.tells else nullcontext() as tell:
            answer = question(session, tell, **given)
        if session and question.announced == AFTER and answer.content is None:
            announce(session)
    if answer is None:
        return
    warn(answer.warnings)
    if wants_json():
        shown = masked(json_of(answer.to_json()), by_name=False)
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False), file=result_stream())
    elif (content := answer.content) is not None:
        click.echo(content, nl=content[-1:] not in ("\n", b"\n"))
    elif as_csv and (table := answer.table()):
        click.echo(csv_text(*table), nl=False)
    else:
        for line in answer.lines():
            print_line(line)
    if answer.exit_code:
        sys.exit(answer.exit_code)
