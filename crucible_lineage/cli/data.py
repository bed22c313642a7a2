"""`data`: copies of the embedded Crucible, made while it runs, and the disk space of the data folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount, size_text
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    DataFolderType,
    chosen_settings,
    crucible_options,
    json_option,
    open_session,
    print_json,
    print_result,
    wants_json,
)
from crucible_lineage.core.folders import Leftover, disk_usage, leftovers, remove
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import first_lines, plain

if TYPE_CHECKING:
    from crucible_lineage.server.backup import Backup, RestoreReport

MOST_NAMED = 20

_FOLDER = click.argument("folder", type=DataFolderType(file_okay=False, path_type=Path))


@click.group("data")
def data_command() -> None:
    """Free disk space; copy the embedded Crucible, and restore a copy."""


@data_command.command("backup")
@_FOLDER
@crucible_options
@json_option
def backup_command(folder: Path) -> None:
    """Copy the embedded Crucible into FOLDER, new or an earlier backup, even while others work with it.

    The copy is consistent and checked; in an earlier backup, only what is new is copied. Results that wait in the
    outbox are not included: `push` first. Exit code 1 if files are damaged here and have no good copy.
    """
    from crucible_lineage.server.backup import BackupError, back_up  # imports pydantic, which `clean` does not need

    crucible = _embedded("backup")
    try:
        backup = back_up(crucible, folder.absolute())
    except BackupError as error:
        raise InputError(str(error)) from error
    print_result(_document(backup), [f"copied {crucible} to {backup.folder}: {_amount(backup)}"])
    _print_damaged(backup, "crucible-lineage verify --project PROJECT --repair")
    sys.exit(FAILURE if backup.damaged else 0)


@data_command.command("restore")
@_FOLDER
@crucible_options
@json_option
def restore_command(folder: Path) -> None:
    """Replace the embedded Crucible by the backup in FOLDER, and list what is newer than the copy.

    The replaced one is set aside beside it, not deleted. Exit code 1 if files of the backup are damaged.
    """
    from crucible_lineage.server.backup import BackupError, restore

    crucible = _embedded("restore")
    try:
        restored = restore(folder.absolute(), crucible)
    except BackupError as error:
        raise InputError(str(error)) from error
    lists = {"younger": restored.younger, "changed": restored.changed}
    listed = {key: None if some is None else [{"mfid": m, "name": n} for m, n in some] for key, some in lists.items()}
    set_aside = None if restored.set_aside is None else str(restored.set_aside)
    document = {**_document(restored.backup), "set_aside": set_aside, **listed}
    copied = f"restored {crucible} from the backup in {folder}: {_amount(restored.backup)}"
    print_result(document, [copied, *_replaced_lines(restored)])
    _print_damaged(restored.backup, "crucible-lineage verify --project PROJECT --repair --from FOLDER")
    sys.exit(FAILURE if restored.backup.damaged else 0)


def _replaced_lines(restored: RestoreReport) -> Iterator[str]:
    younger, changed = restored.younger, restored.changed
    if restored.set_aside is not None:
        yield f"the previous one is set aside: {restored.set_aside}"
    if younger is None or changed is None:
        yield "the previous one cannot be read, so what is newer than the backup is unknown"
    for datasets, words in ((younger, "newer than the backup and not in it"), (changed, "changed after the backup")):
        if datasets:
            count = amount(len(datasets), "dataset")
            yield f"{count} {words}; `run`, `push` and `register` make and deliver them again:"
            lines = (f"  {mfid}  {name}" for mfid, name in datasets)
            yield from first_lines(lines, MOST_NAMED, "  and {} more; --json lists them")


def _embedded(command: str) -> Path:
    settings = chosen_settings()
    if not settings.embedded:
        raise InputError(
            f"data {command} is for the embedded Crucible in a data folder (--data), not for {settings.api_url}"
        )
    return settings.data / "crucible"


def _amount(backup: Backup) -> str:
    return f"{amount(backup.datasets, 'dataset')}, {amount(backup.files, 'file')}, {size_text(backup.bytes)}"


def _print_damaged(backup: Backup, way_out: str) -> None:
    for sha256 in backup.damaged:
        click.echo(f"error: no good copy of the file with SHA-256 {sha256}", err=True)
    if backup.damaged:
        click.echo(f"way out: {way_out}", err=True)


def _document(backup: Backup) -> dict[str, object]:
    return {**vars(backup), "folder": str(backup.folder)}


@data_command.command("clean")
@crucible_options
@click.option(
    "--cache", is_flag=True, help="Also copies of files that Crucible has; they are fetched again when needed."
)
@click.option(
    "--damaged",
    "mfid",
    metavar="MFID",
    help="Only this result, which was damaged while it waited to be delivered; `status` names it.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def clean_command(cache: bool, mfid: str | None, yes: bool) -> None:
    """Remove from the data folder what nothing needs: leftovers of failed and killed steps, and copies that are
    recreated when needed.

    Folders of running steps, the embedded Crucible, undelivered results and the list of runs stay.
    """
    settings = chosen_settings()
    if mfid is not None:
        _free(mfid)
        return
    found = leftovers(settings.data, copies=cache)
    if not wants_json():
        _print_leftovers(settings.data, found, cache)
    if found and not yes and wants_json():
        raise InputError("data clean --json cannot ask for confirmation: add --yes; nothing was removed")
    if found and not yes:
        click.confirm("remove this?", abort=True, err=True)
    failed = _remove_all(found)
    freed = sum(one.bytes for one in found)
    if wants_json():
        removed = [{"path": str(one.path), "kind": one.kind, "bytes": one.bytes} for one in found]
        print_json({"removed": removed, "bytes": freed, "failed": failed})
    elif found:
        click.echo(f"freed: {size_text(freed)}")
    for line in failed:
        click.echo(plain(f"error: not removed: {line}"), err=True)
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


def _remove_all(found: Sequence[Leftover]) -> list[str]:
    """Remove the leftovers. Returns those that could not be removed, with the reason."""
    failed = []
    for one in found:
        try:
            remove(one)
        except OSError as error:
            failed.append(f"{one.path}: {error.strerror}")
    return failed


def _free(mfid: str) -> None:
    with open_session() as session:
        if not session.outbox.free(mfid):
            raise InputError(f"no damaged result {mfid} is kept here; `status` lists the damaged results")
    print_result({"removed": [mfid]}, [f"removed the rest of {mfid}"])
