"""`sign`: say that results are good; what waits for signatures counts once it has them."""

from __future__ import annotations

import click

from crucible_lineage.cli.options import crucible_options, dataset_id, json_option, open_session, print_json
from crucible_lineage.lineage.labels import plain

__all__ = ["sign_command"]


@click.command("sign")
@click.argument("datasets", nargs=-1, required=True)
@click.option("--why", default="", help="What you looked at, in your own words.")
@click.option("--project", metavar="P", help="The project in which it is stated; by default that of DATASETS.")
@crucible_options
@json_option
def sign_command(datasets: tuple[str, ...], why: str, project: str | None, as_json: bool) -> None:
    """Sign DATASETS. A candidate that has all its signatures is current, and what waits for it can be made."""
    from crucible_lineage.signing import sign

    with open_session() as session:
        mfids = [dataset_id(session, text) for text in datasets]
        done = sign(session, mfids, why, project=project or "")
    if as_json:
        print_json(done.to_json())
        return
    one = done.stating.statement
    before = "" if done.stating.is_new else " (as before)"
    for mfid, lacking in done.lacking.items():
        left = f"; {lacking} more {'signature' if lacking == 1 else 'signatures'} needed" if lacking else ""
        click.echo(plain(f"{mfid} is signed by {one.who or one.by}{before}{left}"))
