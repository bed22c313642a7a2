"""`data`: copies of the embedded Crucible, made while it runs, and the disk space of the data folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.question import argument, option
from crucible_lineage.cli.asking import act
from crucible_lineage.cli.options import DATA_FOLDER, chosen_settings, open_session, wants_json
from crucible_lineage.core.folders import disk_usage, leftovers, remove
from crucible_lineage.errors import FAILURE, InputError
from crucible_lineage.text.amounts import amount, size_text

if TYPE_CHECKING:
    from crucible_lineage.server.backup import Backup

Folder = Annotated[Path, argument(kind=DATA_FOLDER)]


@click.group("data")
def data_command() -> None:
    """Free disk space; copy the embedded Crucible, and restore a copy."""


@act("backup", data_command)
def backup_command(folder: Folder) -> Done:
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
    return _done(backup, f"copied {crucible} to {backup.folder}", "crucible-lineage verify --project PROJECT --repair")


@act("restore", data_command)
def restore_command(folder: Folder) -> Done:
    """Replace the embedded Crucible by the backup in FOLDER.

    The replaced one is set aside beside it, not deleted. Exit code 1 if files of the backup are damaged.
    """
    from crucible_lineage.server.backup import BackupError, restore

    crucible = _embedded("restore")
    try:
        backup, set_aside = restore(folder.absolute(), crucible)
    except BackupError as error:
        raise InputError(str(error)) from error
    way_out = "crucible-lineage verify --project PROJECT --repair --from FOLDER"
    done = _done(backup, f"restored {crucible} from the backup in {folder}", way_out)
    aside = [f"the previous one is set aside: {set_aside}"] if set_aside is not None else []
    return replace(done, document={**vars(backup), "set_aside": set_aside}, messages=[*done.messages, *aside])


def _embedded(command: str) -> Path:
    settings = chosen_settings()
    if not settings.embedded:
        raise InputError(
            f"data {command} is for the embedded Crucible in a data folder (--data), not for {settings.api_url}"
        )
    return settings.data / "crucible"


def _done(backup: Backup, done: str, way_out: str) -> Done:
    size = f"{amount(backup.datasets, 'dataset')}, {amount(backup.files, 'file')}, {size_text(backup.bytes)}"
    errors = [f"error: no good copy of the file with SHA-256 {sha256}" for sha256 in backup.damaged]
    warnings = [*errors, f"way out: {way_out}"] if errors else []
    return Done(vars(backup), [f"{done}: {size}"], FAILURE if errors else 0, warnings)


@act("clean", data_command)
def clean_command(
    cache: Annotated[
        bool, option("Also copies of files that Crucible has; they are fetched again when needed.")
    ] = False,
    mfid: Annotated[
        str | None, option(
            "Only this result, which was damaged while it waited to be delivered; `status` names it.", "--damaged",
            metavar="MFID",
        )
    ] = None,
    yes: Annotated[bool, option("Do not ask.")] = False,
) -> Done:  # fmt: skip
    """Remove from the data folder what nothing needs: leftovers of failed and killed steps, and copies that are
    recreated when needed.

    Folders of running steps, the embedded Crucible, undelivered results and the list of runs stay.
    """
    settings = chosen_settings()
    if mfid is not None:
        with open_session() as session:
            if not session.outbox.free(mfid):
                raise InputError(f"no damaged result {mfid} is kept here; `status` lists the damaged results")
        return Done({"removed": [mfid]}, [f"removed the rest of {mfid}"])
    found = leftovers(settings.data, copies=cache)
    if not wants_json():
        click.echo(f"data folder: {settings.data}")
        for kind in dict.fromkeys(leftover.kind for leftover in found):
            sizes = [leftover.bytes for leftover in found if leftover.kind == kind]
            click.echo(f"  {size_text(sum(sizes)):>8}  {len(sizes)} × {kind}")
        if not found:
            click.echo("nothing to remove")
        if (copies := disk_usage(settings.data)["cache"]) and not cache:
            click.echo(f"copies of files take {size_text(copies)}; --cache frees that too")
    if found and not yes and wants_json():
        raise InputError("data clean --json cannot ask for confirmation: add --yes; nothing was removed")
    if found and not yes:
        click.confirm("remove this?", abort=True, err=True)
    failed = []
    for leftover in found:
        try:
            remove(leftover)
        except OSError as error:
            failed.append(f"{leftover.path}: {error.strerror}")
    freed = sum(leftover.bytes for leftover in found)
    lines = [f"freed: {size_text(freed)}"] if found else []
    errors = [f"error: not removed: {line}" for line in failed]
    return Done({"removed": found, "bytes": freed, "failed": failed}, lines, FAILURE if failed else 0, errors)
