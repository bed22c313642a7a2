"""`show`: one dataset with its contents, origin, parents and children; `get`: download the files of datasets."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import size_text, time_text
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    chosen_project,
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_json,
    print_result,
    wants_json,
)
from crucible_lineage.cli.printing import is_lively
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.labels import first_lines, plain, plain_lines, value_text
from crucible_lineage.refs import file_stem
from crucible_lineage.times import time_shown

if TYPE_CHECKING:
    from crucible_lineage.client.models import Thumbnail
    from crucible_lineage.queries.catalogue.files import FilesFetched
    from crucible_lineage.queries.catalogue.runs import StepAttempt
    from crucible_lineage.queries.catalogue.view import DatasetView, ProducingRun
    from crucible_lineage.session import Session

MOST_RELATIVES = 20  # listed parents or children
MOST_METADATA = 30  # listed entries that no step returned


@click.command("show")
@click.argument("dataset", metavar="DATASET|STEP")
@click.argument("pipeline", required=False, metavar="[PIPELINE]")
@crucible_options
@click.option(
    "--log", "as_log", is_flag=True, help="Print its step's log; for a STEP of a PIPELINE, of its last attempt."
)
@click.option("--project", metavar="P", help="The project to search for a part of its id or its name.")
@click.option("--picture/--no-picture", default=True, help="Show its picture, if the terminal can.")
@json_option
def show_command(dataset: str, pipeline: str | None, as_log: bool, project: str | None, picture: bool) -> None:
    """Show the DATASET, named by its MFID, a unique beginning of it, or its name: its state, returned values, files,
    author and time, parents and children.

    With --log, print the output of its step. `show STEP PIPELINE.yaml --log` prints the last attempt of each instance
    of a step from this data folder, including failed ones with their errors.
    """
    if pipeline is not None and not as_log:
        raise InputError(
            f"show {dataset}: for a step there is only a log; give --log, or the dataset without {pipeline}"
        )
    if as_log:
        _print_log(dataset, pipeline, [project] if project else ())
        return
    from crucible_lineage.queries.catalogue.reference import find_mfid
    from crucible_lineage.queries.catalogue.view import show_dataset

    with open_session() as session:
        mfid = find_mfid(session, dataset, [project] if project else ())
        found = show_dataset(session, mfid)
        shown = (
            inline_picture(lambda: session.client.datasets.get_thumbnails(mfid)) if picture and not wants_json() else ""
        )
    print_result(found.to_json(), _lines(found))
    if shown:
        click.echo(shown)


def _print_log(target: str, pipeline: str | None, projects: Sequence[str]) -> None:
    from crucible_lineage.queries.catalogue.runs import last_attempts, log_of_dataset

    with open_session() as session:
        if pipeline is not None:
            from crucible_lineage.pipeline.spec.inputs import located  # imports pydantic, which `get` does not need

            _print_attempts(list(last_attempts(session, located(pipeline), target)))
            return
        try:
            mfid = dataset_id(session, target, projects)
        except InputError as error:
            raise InputError(f"{error}\nfor a step, name its pipeline too: show STEP PIPELINE.yaml --log") from error
        printed = log_of_dataset(session, mfid)
    if wants_json():
        print_json({"mfid": mfid, "log": printed})
    elif printed is None:
        click.echo(f"{mfid} has no log: no step made it, or its step printed nothing", err=True)
    else:
        click.echo(printed, nl=not printed.endswith("\n"))


def _print_attempts(attempts: Sequence[StepAttempt]) -> None:
    if wants_json():
        print_json({"attempts": [vars(attempt) for attempt in attempts]})
        return
    for attempt in attempts:
        ids = "".join(f", {mfid}" for mfid in attempt.datasets.values())
        click.echo(plain(f"{attempt.step}: {attempt.outcome}, run of {time_shown(attempt.started)}{ids}"), err=True)
        if attempt.log:
            click.echo(attempt.log, nl=not attempt.log.endswith("\n"))
        elif attempt.log is None:
            click.echo("its output was not kept", err=True)
        if attempt.error:
            click.echo(plain_lines(attempt.error), err=True)


def _lines(found: DatasetView) -> Iterator[str]:
    """Yield the lines for a dataset: status, origin, measurement, contents and relatives."""
    mfid = found.entry.summary.mfid
    yield from _status(found)
    yield from map(plain, _origin(found))
    yield from _measured(found)
    yield from _contents(found)
    yield from _relatives("parents", found.parents, found)
    yield from _relatives("children", found.children, found)
    yield f"its files: {next_command('get', mfid, '-o', 'FOLDER')}"


def _status(found: DatasetView) -> Iterator[str]:
    from crucible_lineage.queries.deleted import request_text  # imports pydantic, which --help does not need

    entry, mfid = found.entry, found.entry.summary.mfid
    yield plain(entry.summary.name)
    yield f"{mfid}  {entry.state}"
    yield from map(plain, found.remarks)
    if found.deletion:
        requested = time_shown(str(found.deletion.get("request_time") or ""))
        state = request_text(found.deletion.get("status"))
        reason = found.deletion.get("reason")
        yield plain(f"{state} (request {found.deletion.get('id')} of {requested}){f': {reason}' if reason else ''}")
    for other in entry.superseded_by:
        since = f"  since {time_shown(entry.since)}" if entry.since else ""
        yield plain(f"superseded by {_named(other, found.names)}{since}")


def _measured(found: DatasetView) -> Iterator[str]:
    kind = " · ".join(filter(None, (found.entry.summary.measurement, found.facts.get("data_type"))))
    timestamp = time_shown(found.facts.get("timestamp", ""))
    when = f"measured {timestamp}" if timestamp else "measured at an unknown time"
    if parts := [kind, found.facts.get("instrument_name"), when, *found.samples.values()]:
        yield plain("  ".join(filter(None, parts)))


def _contents(found: DatasetView) -> Iterator[str]:
    if found.made.params:
        yield "parameters"
        yield from _values(found.made.params)
    if found.results:
        yield "results" if found.entry.summary.step else "metadata"
        yield from _values(found.results)
    if found.metadata:
        yield "more metadata"
        yield from first_lines(_values(found.metadata), MOST_METADATA, "  and {} more (--json)")
    if found.files:
        yield "files"
        yield from (_file(file) for file in found.files)


def _relatives(relation: str, mfids: Sequence[str], found: DatasetView) -> Iterator[str]:
    if mfids:
        yield relation
    for relative in mfids[:MOST_RELATIVES]:
        yield plain(f"  {_named(relative, found.names)}")
        if relation == "parents" and (equal := found.equal.get(relative)):
            yield f"    equal bytes now: {', '.join(equal)}"
    if len(mfids) > MOST_RELATIVES:
        yield f"  and {len(mfids) - MOST_RELATIVES} more; see {next_command('lineage', found.entry.summary.mfid)}"


def _origin(found: DatasetView) -> Iterator[str]:
    """Yield what made the dataset, who, when and in which run; for measured data, who registered them."""
    summary, origin = found.entry.summary, found.made
    by = f" by {origin.who}" if origin.who else ""
    if step := "/".join(filter(None, (summary.pipeline, summary.step))):
        yield f"made by {step}{f' ({origin.function})' if origin.function else ''}{_when(origin)}{by}"
    elif origin.note or found.parents:
        yield f"made manually{by}{f': {origin.note}' if origin.note else ''}"
    else:
        registered = time_shown(found.facts.get("creation_time", ""))
        yield f"registered {registered}{by}"
    if origin.run:
        yield f"run {origin.run}{f' ({origin.engine})' if origin.engine else ''}"


def _when(made: ProducingRun) -> str:
    began = f" on {time_shown(made.started)}" if made.started else ""
    return began + (f", in {time_text(made.seconds)}" if made.seconds is not None else "")


def _file(file: JsonMapping) -> str:
    size = "" if file["size"] is None else size_text(file["size"])
    return plain(f"  {file['name']}  {size}  sha256 {file['sha256']}")


def _values(values: Mapping[str, object]) -> Iterator[str]:
    yield from (f"  {plain(name)}: {value_text(value)}" for name, value in values.items())


def _named(mfid: str, names: Mapping[str, str]) -> str:
    return f"{mfid}  {names[mfid]}" if names.get(mfid, mfid) != mfid else mfid


ROWS = 14  # height of the picture in lines of text
CHUNK = 4096  # characters of base64 in one command of kitty's protocol
LARGEST = 4_000_000  # characters of base64
PNG = b"\x89PNG\r\n\x1a\n"


def inline_picture(thumbnails: Callable[[], Iterable[Thumbnail]]) -> str:
    """Return the escape sequence that shows the dataset's picture; empty, without a request, if the terminal cannot."""
    protocol = _protocol()
    if protocol is None or not is_lively(sys.stdout):
        return ""
    for thumbnail in thumbnails():
        content = _checked(thumbnail.thumbnail_b64str or "")
        if content and (protocol is _iterm or base64.b64decode(content[:12])[:8] == PNG):
            return protocol(content)
    return ""


def _protocol() -> Callable[[str], str] | None:
    program, term = os.environ.get("TERM_PROGRAM", ""), os.environ.get("TERM", "")
    if os.environ.get("TMUX") or term.startswith(("screen", "tmux")):
        return None  # they pass nothing through by default
    if "kitty" in term or os.environ.get("KITTY_WINDOW_ID") or program in ("ghostty",):
        return _kitty
    return _iterm if program in ("iTerm.app", "WezTerm", "vscode", "mintty") else None


def _checked(content: str) -> str:
    """Return the content if it is pure Base64, else empty text, so that no picture can control the terminal."""
    try:
        return base64.b64encode(base64.b64decode(content, validate=True)).decode() if len(content) < LARGEST else ""
    except ValueError:
        return ""


def _iterm(content: str) -> str:
    return f"\x1b]1337;File=inline=1;height={ROWS};preserveAspectRatio=1:{content}\x07"


def _kitty(content: str) -> str:
    parts = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    control = [f"a=T,f=100,r={ROWS}," if at == 0 else "" for at in range(len(parts))]
    more = [f"m={int(at + 1 < len(parts))}" for at in range(len(parts))]
    return "".join(f"\x1b_G{head}{m};{part}\x1b\\" for head, m, part in zip(control, more, parts, strict=True))


@click.command("get")
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@crucible_options
@click.option("--step", metavar="S", help="All current results of this step.")
@click.option("--run", metavar="ID", help="All that this run made or used.")
@click.option("--project", metavar="P", help="The project to search; by default, the folder's, or the only one.")
@click.option("--file", "patterns", multiple=True, metavar="GLOB", help="Only matching files, as '*.csv'; repeatable.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder for its files."
)
@json_option
def get_command(
    datasets: tuple[str, ...],
    step: str | None,
    run: str | None,
    project: str | None,
    patterns: tuple[str, ...],
    output: Path,
) -> None:
    """Get the files of a DATASET (its MFID, a unique beginning of it, or its name), each checked by its hash.

    Files of several datasets go into folders NAME-MFID. Nothing is overwritten; interrupted downloads continue.
    Exit code 1 if a file is not available.
    """
    if bool(datasets) == bool(step or run):
        raise InputError("name datasets, or select results with --step or --run")
    from crucible_lineage.queries.catalogue.files import fetch_many

    with open_session() as session:
        selected = _select(session, datasets, step, run, project)
        several = len(datasets) != 1
        folders = {
            mfid: output / f"{file_stem(name)}-{mfid}" if several else output for mfid, (name, _) in selected.items()
        }
        with showing_work() as work:
            found = fetch_many(session, folders, patterns, work)
    if wants_json():
        print_json(_as_json(found, selected, several))
    else:
        for fetched in found:
            _print(fetched, selected[fetched.mfid][1])
    if any(fetched.absent for fetched in found):
        sys.exit(FAILURE)


def _select(
    session: Session, datasets: Sequence[str], step: str | None, run: str | None, project: str | None
) -> dict[str, tuple[str, str]]:
    """Return {MFID: (name, state)} of the selected datasets. InputError if there are none."""
    from crucible_lineage.queries.catalogue.listing import list_datasets
    from crucible_lineage.queries.catalogue.reference import find_mfid
    from crucible_lineage.queries.catalogue.view import existing
    from crucible_lineage.queries.graph.state import entry_of

    if not datasets:
        listed = list_datasets(session, chosen_project(session, project), step=step, run=run, every=run is not None)
        if not listed.entries:
            raise InputError(f"get the files of step {step!r}: none of its results is current; `list --all` shows them")
        return {entry.mfid: (entry.summary.name, entry.state) for entry in listed.entries}
    mfids = dict.fromkeys(find_mfid(session, one, [project] if project else ()) for one in datasets)
    entries = [entry_of(session, existing(session, mfid)) for mfid in mfids]
    return {entry.mfid: (entry.summary.name, entry.state) for entry in entries}


def _as_json(found: Sequence[FilesFetched], selected: dict[str, tuple[str, str]], several: bool) -> dict[str, object]:
    each: list[JsonObject] = [
        {
            "mfid": fetched.mfid,
            "state": selected[fetched.mfid][1],
            "files": [str(path) for path in (*fetched.present, *fetched.files)],
            "absent": dict(fetched.absent),
        }
        for fetched in found
    ]
    return {"datasets": each} if several else each[0]


def _print(found: FilesFetched, state: str) -> None:
    for path in found.present:
        click.echo(plain(f"{path}  already there"))
    for path in found.files:
        click.echo(plain(str(path)))
    for name, reason in found.absent.items():
        click.echo(plain(f"error: {name}: {reason}"), err=True)
    if state in ("superseded", "incomplete"):
        click.echo(f"the dataset is {state}; for details: {next_command('show', found.mfid)}", err=True)
