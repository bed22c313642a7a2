"""`serve`: the embedded Crucible for other programs."""

from __future__ import annotations

import json
from pathlib import Path

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
@click.option("--json", "as_json", is_flag=True, help="The first line on stdout is a JSON object with `url`.")
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
    """Run the embedded Crucible until Ctrl-C. Clients need its address and the key in DIR/crucible."""
    from crucible_lineage.server import serve  # FastAPI, which no other command needs

    folder = (data or default_data_folder()).expanduser().absolute() / "crucible"

    def ready(url: str) -> None:
        line = json.dumps({"url": url, "data": str(folder)}) if as_json else f"Crucible: {url} (data: {folder})"
        click.echo(line)

    serve(folder, host=host, port=port, api_key=api_key, certfile=certfile, keyfile=keyfile, on_ready=ready)
