"""`sign`: say that results are good; what waits for signatures counts once it has them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

import click

from crucible_lineage.cli.options import crucible_options, dataset_id, json_option, open_session, print_json
from crucible_lineage.cli.runs.engines import prefect_is_configured
from crucible_lineage.lineage.labels import plain

__all__ = ["print_resumed", "sign_command"]


@click.command("sign")
@click.argument("datasets", nargs=-1, required=True)
@click.option("--why", default="", help="What you looked at, in your own words.")
@click.option("--project", metavar="P", help="The project in which it is stated; by default that of DATASETS.")
@crucible_options
@json_option
def sign_command(datasets: tuple[str, ...], why: str, project: str | None, as_json: bool) -> None:
    """Sign DATASETS. A candidate that has all its signatures is current, and what waits for it can be made.

    Flow runs of Prefect that were suspended for it are resumed, by `watch` where this machine has no Prefect.
    """
    from crucible_lineage.stating import sign

    with open_session() as session:
        mfids = [dataset_id(session, text) for text in datasets]
        done = sign(session, mfids, why, project=project or "")
    if as_json:
        print_json(done.to_json())
        with redirect_stdout(sys.stderr):
            _resume([mfid for mfid, lacking in done.lacking.items() if not lacking])
        return
    one = done.stating.statement
    before = "" if done.stating.is_new else " (as before)"
    for mfid, lacking in done.lacking.items():
        left = f"; {lacking} more {'signature' if lacking == 1 else 'signatures'} needed" if lacking else ""
        click.echo(plain(f"{mfid} is signed by {one.who or one.by}{before}{left}"))
    _resume([mfid for mfid, lacking in done.lacking.items() if not lacking])


def print_resumed(mfids: Sequence[str]) -> None:
    """Resume the flow runs that wait for signatures of these results, and name them."""
    from crucible_lineage.flows.signatures import resume_signed  # importing Prefect costs over a second

    for name in resume_signed(mfids):
        click.echo(f"resumed flow run {name}")


def _resume(mfids: Sequence[str]) -> None:
    if not mfids or not prefect_is_configured():
        return
    try:
        print_resumed(mfids)
    except Exception as error:  # of the network, or Prefect's own: it is signed all the same
        click.echo(f"note: no flow run could be resumed: {error}; `watch` does, or the next run goes on", err=True)
