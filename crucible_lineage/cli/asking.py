"""The command of each question, made from its signature."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from crucible_lineage.ask.answer import Answer, Coloured
from crucible_lineage.ask.question import AFTER, BEFORE, COMMAND, Parameter, Question, find_question
from crucible_lineage.cli.options import announce, crucible_options, json_option, open_session, print_json, wants_json
from crucible_lineage.cli.printing import CSV, coloured, print_csv, warn
from crucible_lineage.cli.working import showing_work
from crucible_lineage.lineage.labels import plain
from crucible_lineage.masking import masked_text


def command_of(name: str) -> click.Command:
    """Return the command that asks a question."""
    question = find_question(name)
    parameters = [_parameter(one) for one in question.parameters_at(COMMAND)]
    command = click.Command(name, callback=lambda **given: _ask(question, **given), help=question.help)
    crucible_options(command)
    command.params.reverse()  # those above a function are read from below
    command.params[:0] = [one for one in parameters if isinstance(one, click.Argument)]
    command.params += [one for one in parameters if isinstance(one, click.Option)]
    for add in (CSV, json_option) if question.is_table else (json_option,):
        add(command)
    return command


def _parameter(one: Parameter) -> click.Parameter:
    param, kind = one.param, _kind(one)
    if param.is_argument:
        return click.Argument(
            [one.name], type=kind, required=one.is_required, nargs=-1 if one.is_list else 1, metavar=param.metavar
        )
    names = [*(param.flags or (f"--{one.name.replace('_', '-')}",)), one.name]
    if one.type is bool:
        return click.Option(names, is_flag=True, help=param.help)
    is_shown = one.default not in (None, (), "") and not one.is_required
    return click.Option(
        names, type=kind, multiple=one.is_list, required=one.is_required, metavar=param.metavar, help=param.help,
        show_default=is_shown, **({} if one.is_required else {"default": one.default}),
    )  # fmt: skip


def _kind(one: Parameter) -> Any:
    if one.param.choices:
        return click.Choice(one.param.choices)
    if one.type is Path:
        is_folder = one.param.metavar == "DIR"
        return click.Path(one.param.exists, not is_folder, is_folder or not one.param.exists, path_type=Path)
    return one.type if one.param.least is None else click.IntRange(one.param.least)


def _ask(question: Question, *, as_csv: bool = False, **given: Any) -> None:
    """Ask, and print the answer on stdout."""
    question.require(question.named(given))
    with open_session(question.patience_s) as session:
        if question.announced == BEFORE and not as_csv:
            announce(session)
        with showing_work() if question.tells else nullcontext() as tell:
            answer = question(session, tell, **given)
        if question.announced == AFTER and answer.content is None:
            announce(session)
    warn(answer.warnings)
    if wants_json():
        print_json(answer.to_json())
    elif as_csv and (table := answer.table()):
        print_csv(*table)
    else:
        print_lines(answer)
    if answer.exit_code:
        sys.exit(answer.exit_code)


def print_lines(answer: Answer) -> None:
    """Print an answer for people."""
    if answer.content is not None:
        click.echo(answer.content, nl=answer.content[-1:] not in ("\n", b"\n"))
        return
    for line in answer.lines():
        if isinstance(line, Coloured):
            click.echo(coloured(plain(line[: line.head]), line.colour) + _shown(line[line.head :]))
        else:
            click.echo(_shown(line))


def _shown(line: str) -> str:
    return plain(masked_text(line))
