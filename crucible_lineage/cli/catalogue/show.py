"""`show`: one dataset, with what it holds, who made it when, and its kin; `get`: the files of datasets, in folders."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crucible_lineage.amounts import size_text, time_text
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_json,
)
from crucible_lineage.cli.printing import is_lively
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain, value_with_unit
from crucible_lineage.refs import file_stem

if TYPE_CHECKING:
    from crucible_lineage.client.models import Thumbnail
    from crucible_lineage.queries.catalogue.files import FilesFetched
    from crucible_lineage.queries.catalogue.runs import StepAttempt
    from crucible_lineage.queries.catalogue.view import DatasetView, ProducingRun
    from crucible_lineage.session import Session

MOST_KIN = 20  # parents or children that are listed
MOST_METADATA = 30  # entries that no step returned


@click.command("show")
@click.argument("dataset", metavar="DATASET|STEP")
@click.argument("pipeline", required=False, metavar="[PIPELINE]")
@crucible_options
@click.option("--log", "as_log", is_flag=True, help="What its step printed; of a STEP of a PIPELINE its last attempt.")
@click.option("--project", metavar="P", help="Where to look for it by a part of its id or its name.")
@click.option("--picture/--no-picture", default=True, help="Its picture, in terminals that show any.")
@json_option
def show_command(
    dataset: str, pipeline: str | None, as_log: bool, project: str | None, picture: bool, as_json: bool
) -> None:
    """Show the DATASET, named by its MFID, a unique beginning of it, or its name: its state, what its step returned,
    its files, who made it when, its parents and children.

    With --log print what its step printed. `show STEP PIPELINE.yaml --log` prints the last attempt of each instance of
    a step from this data folder, also of one that failed, with the error.
    """
    if pipeline is not None and not as_log:
        raise InputError(f"show {dataset}: a step has its log only; give --log, or the dataset without {pipeline}")
    if as_log:
        _print_log(dataset, pipeline, [project] if project else (), as_json=as_json)
        return
    from crucible_lineage.queries.catalogue.reference import find_mfid
    from crucible_lineage.queries.catalogue.view import show_dataset

    with open_session() as session:
        mfid = find_mfid(session, dataset, [project] if project else ())
        found = show_dataset(session, mfid)
        shown = inline_picture(lambda: session.client.datasets.get_thumbnails(mfid)) if picture and not as_json else ""
    if as_json:
        print_json(found.to_json())
        return
    click.echo("\n".join(_shown(found)))
    if shown:
        click.echo(shown)


def _print_log(what: str, pipeline: str | None, projects: Sequence[str], *, as_json: bool) -> None:
    from crucible_lineage.queries.catalogue.runs import last_attempts, log_of_dataset

    with open_session() as session:
        if pipeline is not None:
            from crucible_lineage.pipeline.spec.inputs import located  # with pydantic, which `get` does without

            _print_attempts(list(last_attempts(session, located(pipeline), what)), as_json=as_json)
            return
        try:
            mfid = dataset_id(session, what, projects)
        except InputError as error:
            raise InputError(f"{error}; for a step, name its pipeline too: show STEP PIPELINE.yaml --log") from error
        printed = log_of_dataset(session, mfid)
    if as_json:
        print_json({"mfid": mfid, "log": printed})
    elif printed is None:
        click.echo(f"{mfid} has no log: no step made it, or one that printed nothing", err=True)
    else:
        click.echo(printed, nl=not printed.endswith("\n"))


def _print_attempts(attempts: Sequence[StepAttempt], *, as_json: bool) -> None:
    if as_json:
        print_json({"attempts": [vars(attempt) for attempt in attempts]})
        return
    for attempt in attempts:
        ids = "".join(f", {mfid}" for mfid in attempt.datasets.values())
        click.echo(f"{attempt.step}: {attempt.outcome}, run of {attempt.started[:19]}{ids}", err=True)
        if attempt.log:
            click.echo(attempt.log, nl=not attempt.log.endswith("\n"))
        elif attempt.log is None:
            click.echo("its output was not kept", err=True)
        if attempt.error:
            click.echo(attempt.error, err=True)


def _shown(found: DatasetView) -> Iterator[str]:
    """Yield the lines for a dataset: how it stands, what it is, what it contains, and what it comes from."""
    mfid = found.entry.summary.mfid
    yield from _standing(found)
    yield from map(plain, _made(found))
    yield from _measured(found)
    yield from _contents(found)
    yield from _kin("parents", found.parents, found)
    yield from _kin("children", found.children, found)
    yield f"its files: {next_command('get', mfid, '-o', 'FOLDER')}"


def _standing(found: DatasetView) -> Iterator[str]:
    entry, mfid = found.entry, found.entry.summary.mfid
    yield plain(entry.summary.name)
    yield f"{mfid}  {entry.state}"
    yield from map(plain, found.remarks)
    if found.deletion:
        asked = str(found.deletion.get("request_time") or "")[:19].replace("T", " ")
        state = "is to be deleted" if found.deletion.get("status") == "approved" else "was asked to be deleted"
        reason = found.deletion.get("reason")
        yield plain(f"{state} (request {found.deletion.get('id')} of {asked}){f': {reason}' if reason else ''}")
    for other in entry.superseded_by:
        since = f"  since {entry.since[:19]}" if entry.since else ""
        yield plain(f"superseded by {_named(other, found.names)}{since}")


def _measured(found: DatasetView) -> Iterator[str]:
    what = " · ".join(filter(None, (found.entry.summary.measurement, found.facts.get("data_type"))))
    taken = found.facts.get("timestamp", "")[:19]
    when = f"taken {taken}" if taken else "taken at a time that is not known"
    if about := [what, found.facts.get("instrument_name"), when, *found.samples.values()]:
        yield plain("  ".join(filter(None, about)))


def _contents(found: DatasetView) -> Iterator[str]:
    if found.made.params:
        yield "parameters"
        yield from _values(found.made.params)
    if found.results:
        yield "results" if found.entry.summary.step else "metadata"
        yield from _values(found.results)
    if found.metadata:
        yield "more metadata"
        yield from _values(dict(list(found.metadata.items())[:MOST_METADATA]))
        if len(found.metadata) > MOST_METADATA:
            yield f"  and {len(found.metadata) - MOST_METADATA} more (--json)"
    if found.files:
        yield "files"
        yield from (_file(file) for file in found.files)


def _kin(kin: str, mfids: Sequence[str], found: DatasetView) -> Iterator[str]:
    if mfids:
        yield kin
    for one in mfids[:MOST_KIN]:
        yield plain(f"  {_named(one, found.names)}")
        if kin == "parents" and (equal := found.equal.get(one)):
            yield f"    equal bytes now: {', '.join(equal)}"
    if len(mfids) > MOST_KIN:
        yield f"  and {len(mfids) - MOST_KIN} more; see {next_command('lineage', found.entry.summary.mfid)}"


def _made(found: DatasetView) -> Iterator[str]:
    """By what, by whom, when, in which run; of measured data who registered them."""
    one, made = found.entry.summary, found.made
    by = f" by {made.who}" if made.who else ""
    if step := "/".join(filter(None, (one.pipeline, one.step))):
        yield f"made by {step}{f' ({made.function})' if made.function else ''}{_when(made)}{by}"
    elif made.note or found.parents:
        yield f"made manually{by}{f': {made.note}' if made.note else ''}"
    else:
        registered = found.facts.get("creation_time", "")[:19].replace("T", " ")
        yield f"registered {registered}{by}"
    if made.run:
        yield f"run {made.run}{f' ({made.engine})' if made.engine else ''}"


def _when(made: ProducingRun) -> str:
    began = f" on {made.started[:19].replace('T', ' ')}" if made.started else ""
    return began + (f", in {time_text(made.seconds)}" if made.seconds is not None else "")


def _file(file: Mapping[str, Any]) -> str:
    size = "" if file["size"] is None else size_text(file["size"])
    return plain(f"  {file['name']}  {size}  sha256 {file['sha256']}")


def _values(values: Mapping[str, object]) -> Iterator[str]:
    yield from (f"  {plain(name)}: {value_with_unit(name, value)}" for name, value in values.items())


def _named(mfid: str, names: Mapping[str, str]) -> str:
    return f"{mfid}  {names[mfid]}" if names.get(mfid, mfid) != mfid else mfid


ROWS = 14  # of text, that the picture is high
CHUNK = 4096  # characters of base64 in one command of kitty's protocol
LARGEST = 4_000_000  # characters of base64
PNG = b"\x89PNG\r\n\x1a\n"


def inline_picture(thumbnails: Callable[[], Iterable[Thumbnail]]) -> str:
    """Return the escape sequence that shows the dataset's picture; empty, with nothing read, where none can."""
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
        return None  # they pass nothing through unless they are told to
    if "kitty" in term or os.environ.get("KITTY_WINDOW_ID") or program in ("ghostty",):
        return _kitty
    return _iterm if program in ("iTerm.app", "WezTerm", "vscode", "mintty") else None


def _checked(content: str) -> str:
    """Base64 and nothing else, so that no terminal obeys what somebody put into a picture; empty if it is not."""
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
@click.option("--run", metavar="ID", help="All that this run made or relied on.")
@click.option("--project", metavar="P", help="Where to look; by default, the folder's, or the only one.")
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
    as_json: bool,
) -> None:
    """Get the files of a DATASET (its MFID, a unique beginning of it, or its name), each checked by its hash.

    Files of several datasets go into folders NAME-MFID. Nothing is overwritten; interrupted downloads continue.
    Exit code 1 if a file is not available.
    """
    if bool(datasets) == bool(step or run):
        raise InputError("say whose files: those of datasets, or of all results of a --step or a --run")
    from crucible_lineage.queries.catalogue.files import fetch_many

    with open_session() as session:
        meant = _meant(session, datasets, step, run, project)
        several = len(datasets) != 1
        folders = {
            mfid: output / f"{file_stem(name)}-{mfid}" if several else output for mfid, (name, _) in meant.items()
        }
        with showing_work(silent=as_json) as work:
            found = fetch_many(session, folders, patterns, work)
    if as_json:
        print_json(_as_json(found, meant, several))
    else:
        for one in found:
            _print(one, meant[one.mfid][1])
    if any(one.absent for one in found):
        sys.exit(FAILURE)


def _meant(
    session: Session, datasets: Sequence[str], step: str | None, run: str | None, project: str | None
) -> dict[str, tuple[str, str]]:
    """Return {MFID: (name, state)} of the datasets that are meant. InputError if there are none."""
    from crucible_lineage.queries.catalogue.listing import list_datasets
    from crucible_lineage.queries.catalogue.reference import find_mfid, find_project
    from crucible_lineage.queries.catalogue.view import existing
    from crucible_lineage.queries.graph.state import entry_of

    if not datasets:
        listed = list_datasets(session, find_project(session, project), step=step, run=run, every=run is not None)
        if not listed.entries:
            raise InputError(f"get the files of step {step!r}: none of its results is current; `list --all` shows them")
        return {entry.mfid: (entry.summary.name, entry.state) for entry in listed.entries}
    mfids = dict.fromkeys(find_mfid(session, one, [project] if project else ()) for one in datasets)
    entries = [entry_of(session, existing(session, mfid)) for mfid in mfids]
    return {entry.mfid: (entry.summary.name, entry.state) for entry in entries}


def _as_json(found: Sequence[FilesFetched], meant: dict[str, tuple[str, str]], several: bool) -> dict[str, object]:
    each: list[dict[str, Any]] = [
        {
            "mfid": one.mfid,
            "state": meant[one.mfid][1],
            "files": [str(path) for path in (*one.present, *one.files)],
            "absent": dict(one.absent),
            "made_again": dict(one.made_again),
        }
        for one in found
    ]
    return {"datasets": each} if several else each[0]


def _print(found: FilesFetched, state: str) -> None:
    for path in found.present:
        click.echo(f"{path}  already there")
    for path in found.files:
        click.echo(path)
    for name, reason in found.made_again.items():
        click.echo(f"regenerated {plain(name)}, identical to the recorded file, because: {plain(reason)}", err=True)
    for name, reason in found.absent.items():
        click.echo(f"error: {plain(name)}: {plain(reason)}", err=True)
    if state in ("superseded", "incomplete"):
        click.echo(f"the dataset is {state}; for details: {next_command('show', found.mfid)}", err=True)
