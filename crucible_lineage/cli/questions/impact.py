"""`impact`: what must be redone because a dataset, a file, code or an instrument was wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, time

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import (
    announced_session,
    chosen_projects,
    crucible_options,
    dataset_id,
    json_option,
    print_result,
)
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import HIDDEN_NAME
from crucible_lineage.lineage.model import SUPERSEDED
from crucible_lineage.queries.impact import RedoList, code_impact, dataset_impact, file_impact, instrument_impact
from crucible_lineage.session import Session
from crucible_lineage.times import utc


@click.command("impact")
@click.argument("mfid", required=False)
@crucible_options
@click.option("--file-sha256", metavar="HASH", help="A file that was wrong, by its SHA-256.")
@click.option("--code", metavar="FINGERPRINT", help="Code that was wrong, by its fingerprint or its beginning.")
@click.option("--instrument", metavar="NAME", help="An instrument that was wrong, by name, slug or MFID.")
@click.option(
    "--since",
    metavar="TIME",
    help="With --instrument: data measured at that time or later (ISO 8601; UTC unless a zone is given).",
)
@click.option("--until", metavar="TIME", help="With --instrument: data measured until then; a date includes that day.")
@click.option(
    "--project",
    "projects",
    multiple=True,
    help="Where to look; by default, the folder's, or the only one.",
)
@click.option("--all", "every", is_flag=True, help="Include superseded results.")
@click.option("--refresh", is_flag=True, help="Download the whole project again, not only what changed.")
@json_option
def impact_command(
    mfid: str | None,
    file_sha256: str | None,
    code: str | None,
    instrument: str | None,
    since: str | None,
    until: str | None,
    projects: tuple[str, ...],
    every: bool,
    refresh: bool,
) -> None:
    """List what must be redone because the dataset MFID, a file, code, or an instrument for a time was wrong, each
    dataset with the chain that leads to it. Superseded results are only counted. Changes nothing.
    """
    if sum(cause is not None for cause in (mfid, file_sha256, code, instrument)) != 1:
        raise InputError("give one cause: an MFID, --file-sha256, --code, or --instrument")
    if instrument is None and (since or until):
        raise InputError("--since and --until go with --instrument")
    span = _time_option("--since", since, time.min), _time_option("--until", until, time.max)

    def query(session: Session) -> RedoList:
        if mfid is not None:
            return dataset_impact(session, dataset_id(session, mfid, projects))
        searched = chosen_projects(session, projects)
        if file_sha256 is not None:
            return file_impact(session, file_sha256, searched, refresh=refresh)
        if code is not None:
            return code_impact(session, code, searched, refresh=refresh)
        return instrument_impact(session, str(instrument), searched, since=span[0], until=span[1], refresh=refresh)

    with announced_session() as session:
        found = query(session)
    print_result(found.to_json(every=every), _report(found, every))


def _time_option(option: str, value: str | None, of_day: time) -> datetime | None:
    """Return the time in UTC, its default zone; for a date, the time `of_day` on that day."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InputError(f"{option} {value!r} is not a time; write 2026-03-01 or 2026-03-01T09:30:00+01:00") from None
    if len(value) <= len("2026-03-01"):
        moment = datetime.combine(moment, of_day)
    return utc(moment)


def _report(found: RedoList, every: bool) -> Iterator[str]:
    graph, superseded = found.graph, len(found.superseded)
    if found.deletion is not None:
        yield f"{found.deletion.text}; according to the records, these were made from it:"
    steps: Counter[str] = Counter()
    for mfid in found.impact.ids if every else found.redo:
        node = graph.nodes[mfid]
        if node.state != SUPERSEDED:
            steps[node.step or "made manually or elsewhere"] += 1
        chain = " -> ".join(graph.label(one) for one in found.impact.chain(mfid)[:-1])
        state = "  superseded" if node.state == SUPERSEDED else ""
        yield (node.visible_id or f"({HIDDEN_NAME})") + state
        yield f"  {node.name}" if not chain else f"  {node.name}, by way of {chain}"
    counts = ", ".join(f"{count} {step}" for step, count in steps.most_common())
    more = f"; {superseded} more {'is' if superseded == 1 else 'are'} superseded" if superseded else ""
    if steps:
        yield f"{amount(len(found.redo), 'dataset')} to redo: {counts}{more}"
    else:
        yield f"nothing to redo: nothing {'current ' if superseded else ''}comes from it{more}"
    if count := len(found.untimed):
        measured = f"{amount(count, 'dataset')} {'was' if count == 1 else 'were'}"
        yield f"{measured} measured at an unknown time; results made from {'it' if count == 1 else 'them'} are included"
