"""`watch`: tell Prefect what happens at Crucible, and register files that arrive in a folder."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from crucible_lineage.cli.ending import FAILURE
from crucible_lineage.cli.operation.deploy import require_prefect
from crucible_lineage.cli.options import crucible_options, open_session
from crucible_lineage.cli.statements.sign import print_resumed
from crucible_lineage.errors import InputError, LineageError, UnauthorizedError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.refs import utf8_name
from crucible_lineage.watch.changes import RESULT_SIGNED, Watcher
from crucible_lineage.watch.folder import Folder

__all__ = ["watch_command"]


@click.command("watch")
@crucible_options
@click.option("--project", help="Watch this project; by default, all that the key may see.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Register the files that arrive here, as datasets of --project.",
)
@click.option("--pattern", default="*", show_default=True, help="Which files; **/*.txt also in folders below.")
@click.option("--measurement", help="Of the files, as in 'Raman Spectroscopy'.")
@click.option("--data-type", help="Of the files, as in raw.")
@click.option("--instrument", "instrument_name", help="The instrument that the files come from.")
@click.option("--keyword", "keywords", multiple=True, help="For the files' datasets; repeatable.")
@click.option(
    "--settle", "settle_s", type=click.FloatRange(0), default=10.0, show_default=True, metavar="SECONDS",
    help="A file has arrived when it has not changed for so long.",
)  # fmt: skip
@click.option(
    "--every", "every_s", type=click.FloatRange(0.1), default=30.0, show_default=True, metavar="SECONDS",
    help="How often to look.",
)  # fmt: skip
@click.option(
    "--since", type=click.DateTime(), help="Report also datasets created since then (UTC), reported before or not."
)
@click.option("--once", is_flag=True, help="Look once, wait for files that are there to settle, and end.")
@click.option("--no-events", is_flag=True, help="Only register files; needs no Prefect.")
def watch_command(
    project: str | None,
    folder: Path | None,
    pattern: str,
    measurement: str | None,
    data_type: str | None,
    instrument_name: str | None,
    keywords: tuple[str, ...],
    settle_s: float,
    every_s: float,
    since: datetime | None,
    once: bool,
    no_events: bool,
) -> None:
    """Watch Crucible for new datasets and ended ingestions, and tell Prefect of each once, until Ctrl-C.

    The first start tells of nothing that is there already; later ones go on where the last one stopped. The events are
    `crucible.dataset.created` and `crucible.ingestion.completed`, which the `trigger:` of a pipeline waits for, and
    `crucible.ingestion.failed`.
    With --once, exit code 1 if a file could not be registered.
    """
    if folder is not None and project is None:
        raise InputError("--folder needs --project: which project the files belong to")
    if no_events and folder is None:
        raise InputError("--no-events without --folder leaves nothing to do")
    if not no_events:
        require_prefect()
    with open_session() as session:
        click.echo(session.settings.describe())
        arriving = None
        if folder is not None:
            declared = FileInput(
                file=pattern, measurement=measurement, data_type=data_type, instrument_name=instrument_name,
                keywords=keywords,
            )  # fmt: skip
            arriving = Folder(folder, pattern, str(project), declared, session, settle_s=settle_s)
        watch = _Watch(arriving, None if no_events else Watcher(session, project), since)
        if once:
            watch.look()
            if arriving and arriving.waiting:
                time.sleep(settle_s)
                watch.look()
            sys.exit(FAILURE if watch.failed else 0)
        looked = False
        while True:
            try:
                watch.look()
                looked = True
            except (LineageError, OSError) as error:
                # Wrong from the start is a mistake in the command; later a key, a certificate, a disk may come back.
                if not looked and isinstance(error, InputError | UnauthorizedError):
                    raise
                click.echo(f"{error}\nwaiting; the next try is in {every_s:g} s", err=True)
            time.sleep(every_s)


class _Watch:
    """What one look consists of; what was told and registered stays done when a later part fails."""

    def __init__(self, arriving: Folder | None, watcher: Watcher | None, since: datetime | None) -> None:
        self.arriving = arriving
        self.watcher = watcher
        self.since = since.replace(tzinfo=UTC) if since else None
        self.begun = False
        self.failed: set[Path] = set()  # what has arrived and could not be registered

    def look(self) -> None:
        """Files that have arrived are registered, and Prefect is told what happened."""
        if self.watcher and not self.begun:
            self.watcher.begin(self.since)
            self.begun = True
        for arrival in self.arriving.look() if self.arriving else ():
            if arrival.dataset:
                self.failed.discard(arrival.path)
                click.echo(f"registered {arrival.dataset.mfid}  {plain(utf8_name(arrival.path.name))}")
            else:
                self.failed.add(arrival.path)
                click.echo(f"{plain(utf8_name(str(arrival.path)))}: {arrival.error}", err=True)
        if self.watcher:
            _tell(self.watcher)


def _tell(watcher: Watcher) -> None:
    # Importing Prefect costs over a second; registering files alone needs none.
    from crucible_lineage.flows.reports.events import emit_events

    for portion in watcher.look():
        emit_events(portion)
        for news in portion:
            click.echo(f"reported {news.event}  {news.mfid}  {news.name}")
        if signed := [news.mfid for news in portion if news.event == RESULT_SIGNED]:
            print_resumed(signed)
