"""`reproduce`: remake results from their records, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import click

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.names import find_mfid
from crucible_lineage.ask.question import argument, option
from crucible_lineage.cli.asking import act
from crucible_lineage.cli.options import announce, wants_json
from crucible_lineage.errors import FAILURE, InputError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.session import Session
from crucible_lineage.statements.consent import Consent, ask_in_terminal
from crucible_lineage.statements.stating import account_ids, project_of
from crucible_lineage.text.amounts import amount


@act("reproduce")
def reproduce_command(
    session: Session, results: Annotated[Sequence[str], argument("MFID|BUNDLE.zip...")] = (), *,
    is_all: Annotated[bool, option("Remake all steps, starting from the measured files.", "--all")] = False,
    here: Annotated[bool, option("Use the environment of this Python, and report how it differs.")] = False,
    rtol: Annotated[
        float | None, option("Relative tolerance of numbers (1e-9, or as declared).", kind=click.FloatRange(0, 1))
    ] = None,
    project: Annotated[str | None, option("With --sample: random results of this project.", metavar="P")] = None,
    sample: Annotated[int | None, option("The number of results of --project.", metavar="N", least=1)] = None,
    keep: Annotated[
        Path | None, option("A new folder for the remade files; by default they are removed.", metavar="DIR")
    ] = None,
    network: Annotated[bool, option("Let the steps use the network.")] = False,
    accounts: Annotated[
        Sequence[str], option(
            "Run what this account, or the maker of a bundle with this SHA-256, recorded; repeatable.",
            "--run-code-of", metavar="ACCOUNT",
        )
    ] = (),
    show_code: Annotated[bool, option("Print who wrote what would run, and run nothing.")] = False,
) -> Done:  # fmt: skip
    """Remake results from their recorded source, environment, parameters and inputs, and compare.

    Code of others runs only with consent: asked for in a terminal, by --run-code-of, or by `project trust --code`. A
    bundle has to lead to its ids. Steps get no network, an empty home, and bounds of time, memory and size.

    Nothing at Crucible is changed. Exit code 0 if everything is the same within the tolerance, 1 if something differs
    or could not be made, 2 for code of others without consent.
    """
    from crucible_lineage.remake.driver import Options
    from crucible_lineage.remake.reproduce import code_to_show, reproduce_bundle, reproduce_datasets, sampled

    bundle = _bundle(results, project, sample, keep)

    def progress(line: str) -> None:
        if not wants_json():
            click.echo(plain(line), err=True)

    options = Options(here, rtol, session.settings.data / "environments", is_all, network)
    mfids = [] if bundle else [find_mfid(session, result) for result in results]
    if project:
        mfids = sampled(session, project, sample or 1)
    if show_code:
        shown = list(code_to_show(session, mfids, bundle))
        return Done({"code": shown}, [line for text in shown for line in text.splitlines()])
    if accounts and not bundle:
        accounts = [*account_ids(session, project or project_of(session, mfids, "reproduce"), accounts)]
    consent = Consent(accounts, ask_in_terminal)
    if bundle:
        found = reproduce_bundle(session, bundle, options, progress, keep, consent)
    else:
        announce(session)
        found = reproduce_datasets(session, mfids, options, progress, keep, consent)
    good = sum(outcome.is_good for outcome in found)
    lines = [line for outcome in found for line in outcome.lines()]
    reproduced = f"{good} of {amount(len(found), 'result')} reproduced"
    code = 0 if good == len(found) else FAILURE
    return Done({"results": found}, [*lines, reproduced], code)


def _bundle(results: Sequence[str], project: str | None, sample: int | None, keep: Path | None) -> Path | None:
    """Return the bundle that is named, if one is. Raises InputError for what does not fit together."""
    if bool(results) == bool(project):
        raise InputError("reproduce: name results, a bundle, or --project with --sample")
    if sample and not project:
        raise InputError("reproduce: --sample is for --project")
    if keep is not None and keep.exists():
        raise InputError(f"reproduce: {keep} already exists; name a new folder")
    bundles = [Path(result) for result in results if result.endswith(".zip") or Path(result).is_dir()]
    if bundles and len(results) > 1:
        raise InputError("reproduce: name one bundle and nothing else")
    return bundles[0] if bundles else None
