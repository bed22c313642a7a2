"""`serve`: the embedded Crucible for other programs, and its web pages for people."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urljoin

import click

from crucible_lineage.cli.options import reports_errors
from crucible_lineage.settings import default_data_folder

__all__ = ["serve_command"]


@click.command("serve")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Data folder.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, help="0: a free one.  [default: 0]")
@click.option("--api-key", metavar="KEY", help="The key of the first user; by default one is made and kept.")
@click.option("--certfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TLS certificate.")
@click.option("--keyfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its private key.")
@click.option(
    "--json", "as_json", is_flag=True, help="The first line on stdout is a JSON object with `url` and `pages`."
)
@reports_errors
def serve_command(
    data: Path | None,
    host: str,
    port: int,
    api_key: str | None,
    certfile: Path | None,
    keyfile: Path | None,
    as_json: bool,
) -> None:
    """Run the embedded Crucible until Ctrl-C. Clients need its address, and as their key the one in DIR/crucible.

    Browsers find its pages at the same host and port: projects, datasets, lineages, runs and findings.
    """
    from crucible_lineage.server import serve  # FastAPI, which no other command needs
    from crucible_lineage.web import with_pages  # likewise, and Jinja

    folder = (data or default_data_folder()).expanduser().absolute() / "crucible"

    def ready(url: str) -> None:
        pages = urljoin(url, "/")
        if as_json:
            click.echo(json.dumps({"url": url, "pages": pages, "data": str(folder)}))
        else:
            click.echo(
                f"Crucible: {url} (data: {folder})\npages: {pages} (sign in with the key in {folder / 'api_key'})"
            )

    serve(
        folder,
        host=host,
        port=port,
        api_key=api_key,
        certfile=certfile,
        keyfile=keyfile,
        around=lambda app: with_pages(app, folder.with_name("pages")),
        on_ready=ready,
    )
