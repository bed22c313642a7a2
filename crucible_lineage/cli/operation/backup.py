"""`backup` and `restore`: copies of the embedded Crucible, made while it runs; `clean`, `evict`: room on the disk."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount, size_text, time_text
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    DataFolderType,
    announce,
    crucible_options,
    given,
    json_option,
    open_session,
    print_json,
)
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.local.usage import Leftover, disk_usage, leftovers, remove
from crucible_lineage.settings import resolve_settings

if TYPE_CHECKING:
    from crucible_lineage.server.backup import Backup

MOST_NAMED = 20

_FOLDER = click.argument("folder", type=DataFolderType(file_okay=False, path_type=Path))


@click.command("backup")
@_FOLDER
@crucible_options
@json_option
def backup_command(folder: Path, as_json: bool) -> None:
    """Copy the embedded Crucible into FOLDER, new or an earlier backup, also while others work with it.

    The copy is consistent and checked; of an earlier backup only what is new is copied. What waits in the outbox is
    not part of it: `push` first. Exit code 1 if files are damaged here and have no good copy.
    """
    from crucible_lineage.server.backup import BackupError, back_up  # with FastAPI, which `clean` does without

    crucible = _embedded("backup")
    try:
        made = back_up(crucible, folder.absolute())
    except BackupError as error:
        raise InputError(str(error)) from error
    if as_json:
        print_json(_document(made))
    else:
        click.echo(f"{crucible} is copied to {made.folder}: {_amount(made)}")
        _tell_damaged(made, "crucible-lineage verify --project PROJECT --repair")
    sys.exit(FAILURE if made.damaged else 0)


@click.command("restore")
@_FOLDER
@crucible_options
@json_option
def restore_command(folder: Path, as_json: bool) -> None:
    """Put the backup in FOLDER in the place of the embedded Crucible, and say what is younger than the copy.

    What is there is set aside beside it, not deleted. Exit code 1 if files of the backup are damaged.
    """
    from crucible_lineage.server.backup import BackupError, restore

    crucible = _embedded("restore")
    try:
        found = restore(folder.absolute(), crucible)
    except BackupError as error:
        raise InputError(str(error)) from error
    younger, changed = found.younger, found.changed
    if as_json:
        named = {"younger": younger, "changed": changed}
        lists = {
            key: None if some is None else [{"mfid": m, "name": n} for m, n in some] for key, some in named.items()
        }
        aside = None if found.set_aside is None else str(found.set_aside)
        print_json({**_document(found.backup), "set_aside": aside, **lists})
        sys.exit(FAILURE if found.backup.damaged else 0)
    click.echo(f"{crucible} is what the backup in {folder} was: {_amount(found.backup)}")
    if found.set_aside is not None:
        click.echo(f"what was there is set aside: {found.set_aside}")
    if younger is None or changed is None:
        click.echo("what was there cannot be read, so what is younger than the backup is not known")
    for some, words in ((younger, "younger than the backup and not in it"), (changed, "changed after the backup")):
        if some:
            count = amount(len(some), "dataset")
            click.echo(f"{count} {words}; `run`, `push` and `register` make and deliver them again:")
            for mfid, name in some[:MOST_NAMED]:
                click.echo(f"  {mfid}  {name}")
            if len(some) > MOST_NAMED:
                click.echo(f"  and {len(some) - MOST_NAMED} more; --json names them")
    _tell_damaged(found.backup, "crucible-lineage verify --project PROJECT --repair --from FOLDER")
    sys.exit(FAILURE if found.backup.damaged else 0)


def _embedded(command: str) -> Path:
    settings = resolve_settings(data=given("data"), api_url=given("url"), api_key=given("api_key"))
    if not settings.embedded:
        raise InputError(
            f"{command} is for the embedded Crucible in a data folder (--data), not for {settings.api_url}"
        )
    return settings.data / "crucible"


def _amount(backup: Backup) -> str:
    return f"{amount(backup.datasets, 'dataset')}, {amount(backup.files, 'file')}, {size_text(backup.bytes)}"


def _tell_damaged(backup: Backup, way_out: str) -> None:
    for sha256 in backup.damaged:
        click.echo(f"error: no good copy of the file with SHA-256 {sha256}", err=True)
    if backup.damaged:
        click.echo(f"way out: {way_out}", err=True)


def _document(backup: Backup) -> dict[str, object]:
    return {
        "folder": str(backup.folder),
        "datasets": backup.datasets,
        "files": backup.files,
        "bytes": backup.bytes,
        "damaged": list(backup.damaged),
    }


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
        click.echo(f"error: not removed: {line}", err=True)
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


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@click.command("evict")
@click.option("--to-free", required=True, metavar="SIZE", help="How much room is wanted, as in 20GB.")
@click.option("--trust-own", is_flag=True, help="Receipts from the machine that made a result count, too.")
@click.option("--dry-run", is_flag=True, help="List what would go; change nothing.")
@crucible_options
@json_option
def evict_command(to_free: str, trust_own: bool, dry_run: bool, as_json: bool) -> None:
    """Let go of bytes of results in the embedded Crucible that were made again elsewhere, byte for byte.

    Records stay. `get` and steps make the bytes again where they are needed. Measured data, what is published or on
    hold, and results of steps with `keep: forever` are never touched. Exit code 1 if less can go than was asked for.
    """
    from crucible_lineage.remake.evicting import evict, plan_eviction

    wanted = _bytes(to_free)
    with open_session() as session:
        plan = plan_eviction(session, wanted, trust_own=trust_own)
        freed = plan.bytes if dry_run else evict(session, plan)
        if not as_json:
            announce(session)
    if as_json:
        print_json({**plan.to_json(), "freed": freed, "dry_run": dry_run})
    else:
        for one in plan.goes:
            click.echo(plain(f"{one.mfid}  {size_text(one.bytes):>8}  {time_text(one.seconds)} to make  {one.name}"))
        done = "would be freed" if dry_run else "freed"
        made = f"{time_text(plan.seconds)} to make all again" if plan.goes else ""
        click.echo(", ".join(filter(None, (f"{amount(len(plan.goes), 'result')}, {size_text(freed)} {done}", made))))
        for reason, size in plan.stays.items():
            click.echo(plain(f"stays: {size_text(size)}: {reason}"))
    if freed < wanted:
        click.echo(f"note: {size_text(wanted)} were requested; no more can be evicted", err=True)
        sys.exit(1)


def _bytes(said: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", said.strip(), re.IGNORECASE)
    unit = found[2].upper() if found else ""
    if found is None or (unit and not unit.endswith("B")):
        raise InputError(f"evict --to-free {said}: give a size, as in 500MB or 20GB")
    return int(float(found[1]) * _UNITS[unit])
