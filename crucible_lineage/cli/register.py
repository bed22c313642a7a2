"""`register`: files that no step made, measured or made by hand, as a dataset with its parents."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from pydantic import ValidationError

from crucible_lineage.cli.options import crucible_options, json_option, open_session, print_json, reports_errors
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.raw import existing_dataset, find_raw, hash_files, register_raw
from crucible_lineage.pipeline.spec.inputs import FileInput

__all__ = ["register_command"]


@click.command("register")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@crucible_options
@click.option("--project", required=True, help="The project that the dataset belongs to.")
@click.option("--parent", "parents", multiple=True, metavar="MFID", help="What it was made of; repeatable.")
@click.option("--note", help="What was done, by whom or with what, in your own words.")
@click.option("--name", help="The dataset's name; by default, that of the first file.")
@click.option("--measurement", help="The technique, as in 'Raman Spectroscopy'.")
@click.option("--timestamp", help="When it was measured: ISO 8601 with a time zone.")
@click.option("--keyword", "keywords", multiple=True, help="Repeatable.")
@json_option
@reports_errors
def register_command(
    files: tuple[Path, ...],
    data: Path | None,
    url: str | None,
    api_key: str | None,
    project: str,
    parents: tuple[str, ...],
    note: str | None,
    name: str | None,
    measurement: str | None,
    timestamp: str | None,
    keywords: tuple[str, ...],
    as_json: bool,
) -> None:
    """Register FILES as one dataset. Doing it twice registers it once.

    With --parent it is a result made by hand: a child of those datasets, whose record holds the note.
    """
    for path in files:
        if not path.is_file():
            raise InputError(f"there is no file {path}")
    declared = _declared(files, measurement, timestamp, keywords)
    with open_session(data, url, api_key) as session:
        for parent in parents:
            existing_dataset(parent, session)
        raw = hash_files(project, files, declared.timestamp, session, parents)
        found = find_raw(raw, session)
        if found is None:
            session.ensure_project(project)
        dataset = found or register_raw(raw, declared, name or files[0].name, session, note)
    if as_json:
        print_json({**dataset.to_json(), "registered": found is None, "parents": list(raw.parents)})
    else:
        click.echo(f"{dataset.mfid}  {dataset.name}  {'there already' if found else 'registered'}")


def _declared(
    files: tuple[Path, ...], measurement: str | None, timestamp: str | None, keywords: tuple[str, ...]
) -> FileInput:
    try:
        moment = datetime.fromisoformat(timestamp) if timestamp else None
        return FileInput(
            file=tuple(map(str, files)), measurement=measurement, timestamp=moment, keywords=tuple(keywords)
        )
    except (ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(f"--timestamp {timestamp}: {reason.removeprefix('Value error, ')}") from None
