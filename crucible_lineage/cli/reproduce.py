"""`reproduce`: remake results from their records, and compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import (
    announce,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_result,
    wants_json,
)
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain

if TYPE_CHECKING:
    pass


@click.command("reproduce")
@click.argument("results", nargs=-1, metavar="MFID|BUNDLE.zip...")
@click.option("--all", "is_all", is_flag=True, help="Remake all steps, starting from the measured files.")
@click.option("--here", is_flag=True, help="Use the environment of this Python, and report how it differs.")
@click.option("--rtol", type=click.FloatRange(0, 1), help="Relative tolerance of numbers (1e-9, or as declared).")
@click.option("--project", metavar="P", help="With --sample: random results of this project.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="The number of results of --project.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new folder for the remade files; by default they are removed.",
)
@click.option("--no-receipt", is_flag=True, help="Do not register the outcome at Crucible.")
@click.option("--network", is_flag=True, help="Let the steps use the network.")
@click.option(
    "--run-code-of",
    "accounts",
    multiple=True,
    metavar="ACCOUNT",
    help="Run what this account, or the maker of a bundle with this SHA-256, recorded; repeatable.",
)
@click.option("--show-code", is_flag=True, help="Print who wrote what would run, and run nothing.")
@crucible_options
@json_option
def reproduce_command(
    results: tuple[str, ...],
    is_all: bool,
    here: bool,
    rtol: float | None,
    project: str | None,
    sample: int | None,
    keep: Path | None,
    no_receipt: bool,
    network: bool,
    accounts: tuple[str, ...],
    show_code: bool,
) -> None:
    """Remake results from their recorded source, environment, parameters and inputs, and compare.

    Code of others runs only with consent: asked for in a terminal, by --run-code-of, or by `project trust --code`. A
    bundle has to lead to its ids. Steps get no network, an empty home, and bounds of time, memory and size.

    No result is changed; the outcome is registered at Crucible as a receipt. Exit code 0 if everything is the same
    within the tolerance, 1 if something differs or could not be made, 2 for code of others without consent.
    """
    from crucible_lineage.remake.driver import Options
    from crucible_lineage.remake.receipts import state_receipts
    from crucible_lineage.remake.reproduce import code_to_show, reproduce_bundle, reproduce_datasets, sampled
    from crucible_lineage.statements.consent import Consent, ask_in_terminal

    if bool(results) == bool(project):
        raise InputError("reproduce: name results, a bundle, or --project with --sample")
    if sample and not project:
        raise InputError("reproduce: --sample is for --project")
    if keep is not None and keep.exists():
        raise InputError(f"reproduce: {keep} already exists; name a new folder")
    bundle = _bundle(results)

    def tell(line: str) -> None:
        if not wants_json():
            click.echo(plain(line), err=True)

    with open_session() as session:
        options = Options(here, rtol, session.settings.data / "environments", is_all, network)
        mfids = [] if bundle else [dataset_id(session, one) for one in results]
        if project:
            mfids = sampled(session, project, sample or 1)
        if show_code:
            code = list(code_to_show(session, mfids, bundle))
            print_result({"code": code}, (line for text in code for line in text.splitlines()))
            return
        if bundle:
            found = reproduce_bundle(session, bundle, options, tell, keep, Consent(accounts, ask_in_terminal))
        else:
            announce(session)
            found = reproduce_datasets(session, mfids, options, tell, keep, Consent(accounts, ask_in_terminal))
            if not no_receipt:
                _, faults = state_receipts(session, found)
                for fault in faults:
                    click.echo(plain(f"note: {fault}"), err=True)
    lines = [line for one in found for line in one.lines()]
    good = f"{sum(one.is_good for one in found)} of {amount(len(found), 'result')} reproduced"
    print_result({"results": [one.to_json() for one in found]}, [*lines, good])
    if not all(one.is_good for one in found):
        sys.exit(1)


def _bundle(results: Sequence[str]) -> Path | None:
    """Return the named bundle, or None if datasets are named. InputError if a bundle is not named alone."""
    bundles = [Path(one) for one in results if one.endswith(".zip") or Path(one).is_dir()]
    if bundles and len(results) > 1:
        raise InputError("reproduce: name one bundle and nothing else")
    return bundles[0] if bundles else None
