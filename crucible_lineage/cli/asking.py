"""The command of each question, made from its signature."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from crucible_lineage.ask.answer import Answer
from crucible_lineage.ask.question import AFTER, BEFORE, COMMAND, Parameter, Question, find_question, question_of
from crucible_lineage.cli.options import CRUCIBLE, CSV, JSON, announce, open_session, wants_json
from crucible_lineage.cli.printing import print_line, result_stream, warn
from crucible_lineage.cli.working import ProgressDisplay
from crucible_lineage.json_types import json_of
from crucible_lineage.lineage.labels import csv_text
from crucible_lineage.text.masking import masked


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
    names = [*(param.flags or (f"--{parameter.name.replace('_', '-')}",)), parameter.name]
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
