"""`verify`: whether a dataset, or a project, is still what its provenance says."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crucible_lineage.cli.options import (
    FAILURE,
    crucible_options,
    json_option,
    open_session,
    print_json,
    reports_errors,
)
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.queries.verify.verify import Verification, verify_dataset, verify_project

__all__ = ["verify_command"]


@click.command("verify")
@click.argument("mfid", required=False)
@crucible_options
@click.option("--project", help="Verify all datasets of this project.")
@click.option("--bytes", "read_bytes", is_flag=True, help="Download every file and hash it, too.")
@json_option
@reports_errors
def verify_command(
    mfid: str | None,
    data: Path | None,
    url: str | None,
    api_key: str | None,
    project: str | None,
    read_bytes: bool,
    as_json: bool,
) -> None:
    """Compare the dataset MFID and all that it was made from, or a project, with the provenance records.

    Ids are derived again, links and files compared with what was recorded. Exit code 0 if all is as recorded, 1 if
    something is not, 2 if the input is wrong. Changes nothing.
    """
    if (mfid is None) == (project is None):
        raise InputError("give either the MFID of a dataset or --project")
    with open_session(data, url, api_key) as session:
        if project is not None:
            found = verify_project(session, project, read_bytes=read_bytes)
        else:
            found = verify_dataset(session, str(mfid), read_bytes=read_bytes)
        where = session.settings.describe()
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(where)
        _report(found)
    sys.exit(FAILURE if found.findings else 0)


def _report(found: Verification) -> None:
    for finding in found.findings:
        click.echo(f"{finding.severity}: {finding.check}: {' '.join(finding.ids)}")
        click.echo(f"  {plain(finding.message)}")
        if finding.command:
            click.echo(f"  way out: {finding.command}")
    checked = f"{found.datasets} datasets ({found.records} with a record), {found.files} files"
    if found.bytes_read:
        checked += f", {found.bytes_read} bytes read"
    if found.hidden:
        checked += f"; {len(found.hidden)} parents that this key cannot see were not compared"
    click.echo(f"{len(found.findings) or 'no'} findings in {checked}")
