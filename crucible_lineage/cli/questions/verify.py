"""`verify`: whether a dataset, or a project, is still what its provenance says."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.findings import ALL, exit_code, print_findings
from crucible_lineage.cli.options import (
    announce,
    chosen_projects,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_json,
)
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.queries.verify.repair import Repair
from crucible_lineage.queries.verify.verify import Verification, repaired, verify_dataset, verify_project
from crucible_lineage.remake.healing import made_again

__all__ = ["verify_command"]


@click.command("verify")
@click.argument("mfid", required=False)
@crucible_options
@click.option("--project", help="Verify this project; by default, the folder's, or the only one.")
@click.option("--bytes", "read_bytes", is_flag=True, help="Download every file and hash it, too.")
@click.option("--repair", "is_repair", is_flag=True, help="Send damaged and lost files again; reads every file first.")
@click.option(
    "--from",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another data folder in which --repair looks for good bytes; may be given several times.",
)
@ALL
@json_option
def verify_command(
    mfid: str | None,
    project: str | None,
    read_bytes: bool,
    is_repair: bool,
    folders: tuple[Path, ...],
    every: bool,
    as_json: bool,
) -> None:
    """Compare the dataset MFID and all that it was made from, or a project, with the provenance records.

    Ids are derived again, links and files compared with what was recorded. Exit code 1 if there is an
    error among the findings, 2 if the input is wrong. Changes nothing, except that --repair sends good bytes
    from this data folder, other ones, or other datasets, or makes a result again, where Crucible has lost them.
    """
    if mfid is not None and project is not None:
        raise InputError("give either the MFID of a dataset or --project, not both")
    if folders and not is_repair:
        raise InputError("--from says where --repair looks for good bytes; give --repair too")
    with open_session() as session:
        mfid = mfid and dataset_id(session, mfid)
        project = project if mfid else chosen_projects(session, [project] if project else ())[0]
        with showing_work(silent=as_json) as tell:

            def verify(*, read_bytes: bool = False) -> Verification:
                if project is not None:
                    return verify_project(session, project, read_bytes=read_bytes, tell=tell)
                return verify_dataset(session, str(mfid), read_bytes=read_bytes, tell=tell)

            found, repairs = verify(read_bytes=read_bytes or is_repair), list[Repair]()
            if is_repair and (found.damaged or found.damaged_copies):
                found, repairs = repaired(session, found, verify, folders, made_again)
        announce(session)
    if as_json:
        print_json({**found.to_json(), **({"repairs": [one.to_json() for one in repairs]} if is_repair else {})})
    else:
        for one in repairs:
            if one.source:
                click.echo(f"repaired {one.file.filename} of {one.file.mfid}, from {one.source}")
        print_findings(project or str(mfid), found.findings, _looked_at(found), every=every)
    sys.exit(exit_code(found.findings))


def _looked_at(found: Verification) -> str:
    checked = f"{amount(found.datasets, 'dataset')} ({found.records} with a record), {amount(found.files, 'file')}"
    if found.bytes_read:
        checked += f", {found.bytes_read} bytes read"
    if found.hidden:
        checked += f"; not compared: {amount(len(found.hidden), 'parent')} that this key cannot see"
    return checked
