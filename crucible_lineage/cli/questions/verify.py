"""`verify`: whether a dataset, or a project, is still what its provenance says."""

from __future__ import annotations

import sys

import click

from crucible_lineage.cli.findings import ALL, exit_code, print_findings
from crucible_lineage.cli.options import (
    announce,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_json,
)
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.queries.verify.verify import Verification, verify_dataset, verify_project

__all__ = ["verify_command"]


@click.command("verify")
@click.argument("mfid", required=False)
@crucible_options
@click.option("--project", help="Verify all datasets of this project.")
@click.option("--bytes", "read_bytes", is_flag=True, help="Download every file and hash it, too.")
@ALL
@json_option
def verify_command(
    mfid: str | None,
    project: str | None,
    read_bytes: bool,
    every: bool,
    as_json: bool,
) -> None:
    """Compare the dataset MFID and all that it was made from, or a project, with the provenance records.

    Ids are derived again, links and files compared with what was recorded. Exit code 1 if there is an
    error among the findings, 2 if the input is wrong. Changes nothing.
    """
    if (mfid is None) == (project is None):
        raise InputError("give either the MFID of a dataset or --project")
    with open_session() as session:
        mfid = mfid and dataset_id(session, mfid)
        with showing_work(silent=as_json) as tell:
            if project is not None:
                found = verify_project(session, project, read_bytes=read_bytes, tell=tell)
            else:
                found = verify_dataset(session, str(mfid), read_bytes=read_bytes, tell=tell)
        announce(session)
    if as_json:
        print_json(found.to_json())
    else:
        print_findings(project or str(mfid), found.findings, _looked_at(found), every=every)
    sys.exit(exit_code(found.findings))


def _looked_at(found: Verification) -> str:
    checked = f"{found.datasets} datasets ({found.records} with a record), {found.files} files"
    if found.bytes_read:
        checked += f", {found.bytes_read} bytes read"
    if found.hidden:
        checked += f"; {len(found.hidden)} parents that this key cannot see were not compared"
    return checked
