"""`serve`: the embedded Crucible for other programs, and its web pages for people; `mcp`: questions of assistants;
`data`: copies of the embedded Crucible, made while it runs, and the disk space of the data folder."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urljoin

import click

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.question import argument, option
from crucible_lineage.cli.asking import DATA_FOLDER, EXISTING_FOLDER, act, chosen_settings, open_session
from crucible_lineage.cli.printing import result_stream, wants_json
from crucible_lineage.core.folders import Leftover, disk_usage, leftovers, remove
from crucible_lineage.errors import FAILURE, InputError, LineageError, require_library
from crucible_lineage.machine.disk import storage_error
from crucible_lineage.session import Session
from crucible_lineage.settings import default_data_folder, key_in, valid_key
from crucible_lineage.text.amounts import amount, size_text

if TYPE_CHECKING:
    from crucible_lineage.server.backup import Backup

MIN_KEY_CHARACTERS = 20  # random letters and digits: over a hundred bits


@act("serve", has_crucible=False)
def serve_command(
    data: Annotated[Path | None, option("Data folder.", metavar="DIR", kind=DATA_FOLDER)] = None,
    host: Annotated[str, option("")] = "127.0.0.1",
    port: Annotated[int, option("0: a free one.", kind=click.IntRange(0, 65535))] = 0,
    api_key: Annotated[
        str | None, option(
            "A key of the first user. Process listings show it: prefer --api-key-file or CRUCIBLE_LINEAGE_SERVE_KEY. "
            "By default one is made and kept.", metavar="KEY",
        )
    ] = None,
    api_key_file: Annotated[Path | None, option("A file that contains only that key.", exists=True)] = None,
    certfile: Annotated[Path | None, option("TLS certificate.", exists=True)] = None,
    keyfile: Annotated[Path | None, option("Its private key.", exists=True, needs="certfile")] = None,
) -> None:  # fmt: skip
    """Run the embedded Crucible until Ctrl-C. Clients need its address, and the key in DIR/crucible/api_key.

    Browsers find its pages at the same host and port: projects, datasets, lineages, runs and findings.
    """
    from crucible_lineage.server.running import serve  # imports uvicorn, which no other command needs
    from crucible_lineage.web.app import with_pages  # likewise, with Jinja

    folder = (data or default_data_folder()).expanduser().absolute() / "crucible"
    if api_key_file is not None and api_key is not None:
        raise InputError("--api-key and --api-key-file both name a key; give one of them")
    given = api_key if api_key is not None else os.environ.get("CRUCIBLE_LINEAGE_SERVE_KEY") or None
    key = key_in(api_key_file) if api_key_file is not None else None if given is None else valid_key(given)
    if certfile:
        _check_certificate(certfile, keyfile)
    for warning in _warnings(host, key, secure=certfile is not None):
        click.echo(f"warning: {warning}", err=True)

    def ready(url: str) -> None:
        pages = urljoin(url, "/")
        if wants_json():
            click.echo(json.dumps({"url": url, "pages": pages, "data": str(folder)}), file=result_stream())
        else:
            click.echo(
                f"Crucible: {url} (data: {folder})\npages: {pages} (sign in with the key in {folder / 'api_key'})"
            )

    before = os.umask(0o077)  # files are private to their owner
    try:
        serve(
            folder,
            host=host,
            port=port,
            api_key=key,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
            around=lambda app: with_pages(app, folder.parent),
            on_ready=ready,
        )
    except RuntimeError as error:  # its message is for users
        raise LineageError(str(error)) from error
    except OSError as error:
        raise storage_error(error) or LineageError(f"{folder} cannot be created: {error.strerror}") from error
    finally:
        os.umask(before)


def _check_certificate(certfile: Path, keyfile: Path | None) -> None:
    """Raise InputError for a certificate that cannot be used."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except (ssl.SSLError, OSError) as error:
        pair = f"{certfile} with the key in {keyfile}" if keyfile else f"{certfile}, without --keyfile,"
        raise InputError(f"--certfile {pair} cannot be used: {error.strerror or error}") from error


def _warnings(host: str, key: str | None, *, secure: bool) -> list[str]:
    """Return warnings about a key that others could read or guess."""
    with suppress(ValueError):  # a name
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return []
    warnings = []
    if not secure:
        warnings.append(f"{host or 'every address'} can be reached from other machines, and without --certfile and "
                     "--keyfile keys and data travel as plain text")  # fmt: skip
    if key is not None and len(key) < MIN_KEY_CHARACTERS:
        warnings.append(f"the key has {len(key)} characters and can be guessed from other machines; "
                     f"take {MIN_KEY_CHARACTERS} or more, at random")  # fmt: skip
    return warnings


@act("mcp", has_json=False)
def mcp_command(
    session: Session,
    folder: Annotated[
        Path, option("The folder of the pipelines that may be planned; by default this folder.", kind=EXISTING_FOLDER)
    ] = Path(),
) -> None:  # fmt: skip
    """Answer the questions of an assistant over the Model Context Protocol.

    It changes nothing, and sees what the key in use can see. The assistant starts this command, which its
    configuration names. Needs the extra `mcp`.
    """
    require_library("what an assistant asks for", "mcp", "mcp")
    from crucible_lineage.ask.assistant import serve_questions  # importing the SDK takes a second

    serve_questions(session, folder)


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
    return _done(backup, f"copied {crucible} to {backup.folder}", "crucible-lineage verify --project PROJECT --bytes")


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
    way_out = "crucible-lineage verify --project PROJECT --bytes, then reproduce MFID --restore --from FOLDER"
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
        _print_leftovers(settings.data, found, 0 if cache else disk_usage(settings.data)["cache"])
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


def _print_leftovers(folder: Path, found: Sequence[Leftover], copies: int) -> None:
    """Print what can be removed from a data folder, and the bytes of copies that stay."""
    click.echo(f"data folder: {folder}")
    for kind in dict.fromkeys(leftover.kind for leftover in found):
        sizes = [leftover.bytes for leftover in found if leftover.kind == kind]
        click.echo(f"  {size_text(sum(sizes)):>8}  {len(sizes)} × {kind}")
    if not found:
        click.echo("nothing to remove")
    if copies:
        click.echo(f"copies of files take {size_text(copies)}; --cache frees that too")
