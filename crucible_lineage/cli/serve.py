"""`serve`: the embedded Crucible for other programs, and its web pages for people; `mcp`: questions of assistants."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from pathlib import Path
from urllib.parse import urljoin

import click
from click.core import ParameterSource

from crucible_lineage.cli.options import DataFolderType, crucible_options, open_session
from crucible_lineage.cli.printing import result_stream
from crucible_lineage.disk import storage_error
from crucible_lineage.errors import InputError, LineageError, missing_library
from crucible_lineage.settings import default_data_folder, key_in, valid_key

MIN_KEY_CHARACTERS = 20  # random letters and digits: over a hundred bits


@click.command("serve")
@click.option("--data", type=DataFolderType(file_okay=False, path_type=Path), metavar="DIR", help="Data folder.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: a free one.  [default: 0]")
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="CRUCIBLE_LINEAGE_SERVE_KEY",
    help="A key of the first user. Process listings show it: prefer --api-key-file or "
    "CRUCIBLE_LINEAGE_SERVE_KEY. By default one is made and kept.",
)
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that contains only that key.",
)
@click.option("--certfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TLS certificate.")
@click.option("--keyfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its private key.")
@click.option(
    "--json", "as_json", is_flag=True, help="The first line on stdout is a JSON object with `url` and `pages`."
)
def serve_command(
    data: Path | None,
    host: str,
    port: int,
    api_key: str | None,
    api_key_file: Path | None,
    certfile: Path | None,
    keyfile: Path | None,
    as_json: bool,
) -> None:
    """Run the embedded Crucible until Ctrl-C. Clients need its address, and the key in DIR/crucible/api_key.

    Browsers find its pages at the same host and port: projects, datasets, lineages, runs and findings.
    """
    from crucible_lineage.server import serve  # imports uvicorn, which no other command needs
    from crucible_lineage.web import with_pages  # likewise, with Jinja

    folder = (data or default_data_folder()).expanduser().absolute() / "crucible"
    key = _given_key(api_key, api_key_file)
    _check_certificate(certfile, keyfile)
    for warning in _warnings(host, key, secure=certfile is not None):
        click.echo(f"warning: {warning}", err=True)

    def ready(url: str) -> None:
        pages = urljoin(url, "/")
        if as_json:
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
            certfile=certfile,
            keyfile=keyfile,
            around=lambda app: with_pages(app, folder.parent),
            on_ready=ready,
        )
    except RuntimeError as error:  # its message is for users
        raise LineageError(str(error)) from error
    except OSError as error:
        raise storage_error(error) or LineageError(f"{folder} cannot be created: {error.strerror}") from error
    finally:
        os.umask(before)


def _given_key(api_key: str | None, file: Path | None) -> str | None:
    """Return the given key. InputError if it is given twice, or no request could carry it."""
    if file is not None:
        context = click.get_current_context()
        if context.get_parameter_source("api_key") is ParameterSource.COMMANDLINE:
            raise InputError("--api-key and --api-key-file both name a key; give one of them")
        return key_in(file)
    return None if api_key is None else valid_key(api_key)


def _check_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    """Raise InputError for a certificate that cannot be used."""
    if certfile is None:
        if keyfile is not None:
            raise InputError("--keyfile needs its certificate: --certfile")
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except (ssl.SSLError, OSError) as error:
        pair = f"{certfile} with the key in {keyfile}" if keyfile else f"{certfile}, without --keyfile,"
        raise InputError(f"--certfile {pair} cannot be used: {error.strerror or error}") from error


def _warnings(host: str, key: str | None, *, secure: bool) -> list[str]:
    """Return warnings about a key that others could read or guess."""
    if host == "localhost" or _is_loopback(host):
        return []
    warnings = []
    if not secure:
        warnings.append(f"{host or 'every address'} can be reached from other machines, and without --certfile and "
                     "--keyfile keys and data travel as plain text")  # fmt: skip
    if key is not None and len(key) < MIN_KEY_CHARACTERS:
        warnings.append(f"the key has {len(key)} characters and can be guessed from other machines; "
                     f"take {MIN_KEY_CHARACTERS} or more, at random")  # fmt: skip
    return warnings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@click.command("mcp")
@crucible_options
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The folder of the pipelines that may be planned; by default this folder.",
)
def mcp_command(folder: Path) -> None:
    """Answer the questions of an assistant over the Model Context Protocol.

    It changes nothing, and sees what the key in use can see. The assistant starts this command, which its
    configuration names. Needs the extra `mcp`.
    """
    try:
        from crucible_lineage.assistant import serve_questions  # importing the SDK takes a second; it is an extra
    except ImportError as error:
        raise missing_library("what an assistant asks for", "mcp", "mcp") from error
    with open_session() as session:
        serve_questions(session, folder)
