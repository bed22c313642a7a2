"""`clean`: room on the disk, by taking away what nothing needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from crucible_lineage.amounts import size_text
from crucible_lineage.cli.ending import FAILURE
from crucible_lineage.cli.options import crucible_options, given, json_option, open_session, print_json
from crucible_lineage.errors import InputError
from crucible_lineage.local.usage import Leftover, disk_usage, leftovers, remove
from crucible_lineage.settings import resolve_settings

__all__ = ["clean_command"]


@click.command("clean")
@crucible_options
@click.option("--cache", is_flag=True, help="Also the copies of files that Crucible has; they are fetched again.")
@click.option(
    "--damaged",
    "mfid",
    metavar="MFID",
    help="Only this result, which was damaged while it waited to be delivered; `status` names it.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def clean_command(cache: bool, mfid: str | None, yes: bool, as_json: bool) -> None:
    """Take away what nothing needs from the data folder: what failed and killed steps left, and copies that are made
    anew where they are missed.

    What a step works in stays, so does the embedded Crucible, what is not delivered yet, and the list of runs.
    """
    settings = resolve_settings(data=given("data"), api_url=given("url"), api_key=given("api_key"))
    if mfid is not None:
        _free(mfid, as_json)
        return
    found = leftovers(settings.data, copies=cache)
    if not as_json:
        _print_leftovers(settings.data, found, cache)
    if found and not yes and as_json:
        raise InputError("clean --json cannot ask for confirmation: add --yes; nothing was removed")
    if found and not yes:
        click.confirm("take this away?", abort=True, err=True)
    failed = _removed(found)
    freed = sum(one.bytes for one in found)
    if as_json:
        removed = [{"path": str(one.path), "kind": one.kind, "bytes": one.bytes} for one in found]
        print_json({"removed": removed, "bytes": freed, "failed": failed})
    elif found:
        click.echo(f"freed: {size_text(freed)}")
    for line in failed:
        click.echo(f"error: it stays: {line}", err=True)
    sys.exit(FAILURE if failed else 0)


def _print_leftovers(data: Path, found: Sequence[Leftover], cache: bool) -> None:
    click.echo(f"data folder: {data}")
    for kind in dict.fromkeys(one.kind for one in found):
        sizes = [one.bytes for one in found if one.kind == kind]
        click.echo(f"  {size_text(sum(sizes)):>8}  {len(sizes)} × {kind}")
    if not found:
        click.echo("nothing to remove")
    copies = disk_usage(data)["cache"]
    if copies and not cache:
        click.echo(f"copies of files take {size_text(copies)}; --cache frees that too")


def _removed(found: Sequence[Leftover]) -> list[str]:
    """Remove the leftovers. Returns those that stay, with the reason."""
    failed = []
    for one in found:
        try:
            remove(one)
        except OSError as error:
            failed.append(f"{one.path}: {error.strerror}")
    return failed


def _free(mfid: str, as_json: bool) -> None:
    with open_session() as session:
        if not session.outbox.free(mfid):
            raise InputError(f"no damaged result {mfid} is kept here; `status` lists what there is")
    if as_json:
        print_json({"removed": [mfid]})
    else:
        click.echo(f"removed what was left of {mfid}")
