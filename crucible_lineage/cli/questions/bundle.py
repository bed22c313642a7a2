"""`bundle`: a result with all that it was made from, in one file that anybody can check."""

from __future__ import annotations

from pathlib import Path

import click

from crucible_lineage.amounts import amount, size_text
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
from crucible_lineage.lineage.export.crate_profiles import PROFILES
from crucible_lineage.lineage.extra import require_library
from crucible_lineage.lineage.labels import plain

__all__ = ["bundle_command", "profile_option"]

profile_option = click.option(
    "--profile",
    type=click.Choice(PROFILES),
    help=f"The version of Workflow Run RO-Crate that the metadata follow ({PROFILES[0]}).",
)


@click.command("bundle")
@click.argument("mfid")
@crucible_options
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The ZIP file to write."
)
@click.option("--license", "license_url", metavar="URL", default="", help="The licence that the bundle states.")
@profile_option
@json_option
def bundle_command(
    mfid: str,
    output: Path,
    license_url: str,
    profile: str | None,
    as_json: bool,
) -> None:
    """Put the dataset MFID and all that it was made from into a ZIP file: files, records, pictures, metadata.

    In it lies verify.py, which needs nothing but Python and checks the bundle offline. Needs the extra `export`.
    """
    if output.exists():
        raise InputError(f"write a bundle to {output}: the file is there already; name a new one")
    require_library("a bundle", "rocrate", "export")
    from crucible_lineage.queries.bundle import write_bundle  # with pydantic and httpx, which --help does not need

    with open_session() as session:
        announce(session)
        mfid = dataset_id(session, mfid)
        with showing_work(silent=as_json) as work:
            work("fetching the files of all that it was made from", 0)
            taken = write_bundle(session, mfid, output, license_url=license_url, profile=profile or PROFILES[0])
    if as_json:
        print_json(
            {
                "bundle": str(output),
                "datasets": taken.datasets,
                "hidden": taken.hidden,
                "files": taken.files,
                "bytes": taken.size_bytes,
                "absent": list(taken.absent),
                "list_sha256": taken.list_sha256,
            }
        )
        return
    for line in taken.absent:
        click.echo(f"not in it: {plain(line)}", err=True)
    if taken.hidden:
        click.echo(
            f"left out, and named as hidden: {amount(taken.hidden, 'parent')} that this key may not see", err=True
        )
    files = f"{amount(taken.files, 'file')} of theirs, {size_text(taken.size_bytes)}"
    click.echo(f"{output}: {amount(taken.datasets, 'dataset')}, {files}")
    click.echo(f"SHA-256 of its bundle.json: {taken.list_sha256}")
    click.echo("unpacked, it can be checked with: python verify.py")
