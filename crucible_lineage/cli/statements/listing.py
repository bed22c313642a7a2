"""`statements`: what people have stated about results, whether it is in force, and whether it counts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import announce, crucible_options, dataset_id, json_option, open_session, print_json
from crucible_lineage.core.stated import Heard
from crucible_lineage.ids import canonical_json
from crucible_lineage.lineage.labels import plain
from crucible_lineage.session import Session
from crucible_lineage.ssh import signer_of

__all__ = ["statements_command"]


@click.command("statements")
@click.argument("dataset", required=False)
@click.option("--project", metavar="P", help="Those that lie in this project; by default all that this key may see.")
@click.option(
    "--verify",
    "allowed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Verify signatures by ssh keys: FILE is one of allowed signers, as ssh-keygen has it.",
)
@click.option("--all", "every", is_flag=True, help="What is not in force any more, too.")
@crucible_options
@json_option
def statements_command(
    dataset: str | None, project: str | None, allowed: Path | None, every: bool, as_json: bool
) -> None:
    """List what is stated about results, or about DATASET, the oldest first: holds, flags, whose statements count."""
    with open_session() as session:
        found = _found(session, dataset)
        if not as_json:
            announce(session)
    shown = [
        one
        for one in found
        if (every or one.in_force) and project in (None, one.statement.project) and (every or not one.statement.revokes)
    ]
    signers = {one.statement.mfid: _signer(one, allowed) for one in shown} if allowed else {}
    if as_json:
        told = ({"signer": signers[one.statement.mfid]} if allowed else {} for one in shown)
        print_json({"statements": [{**one.to_json(), **more} for one, more in zip(shown, told, strict=True)]})
    else:
        for one in shown:
            click.echo(plain(_line(one) + (_told(signers[one.statement.mfid]) if allowed else "")))
        left = f"; not listed: {len(found) - len(shown)} (--all)" if len(shown) < len(found) else ""
        click.echo(f"{amount(len(shown), 'statement')}{left}")
    if any(signer == "" for signer in signers.values()):
        sys.exit(1)


def _found(session: Session, dataset: str | None) -> Sequence[Heard]:
    """Return what is stated about a dataset, or all that this key may see."""
    session.mirror.sync_statements()
    if dataset is None:
        return session.stated.all(None)
    from crucible_lineage.queries.catalogue.shown import show_dataset  # with pydantic, as --help need not have

    return show_dataset(session, dataset_id(session, dataset)).statements


def _signer(one: Heard, allowed: Path) -> str | None:
    """Who has signed it, None if nobody has, empty if the signature is not of an allowed signer."""
    statement = one.statement
    receipt, signature = statement.body.get("receipt"), statement.body.get("signature")
    if isinstance(receipt, Mapping) and signature and not signer_of(canonical_json(receipt), str(signature), allowed):
        return ""
    return signer_of(statement.signed_text, statement.signature, allowed) if statement.signature else None


def _told(signer: str | None) -> str:
    if signer is None:
        return "  (not signed)"
    return f"  (signed by {signer})" if signer else "  (SIGNATURE OF NOBODY ALLOWED, OR OF ANOTHER TEXT)"


def _line(one: Heard) -> str:
    return f"{one.statement.mfid}  {str(one.statement.about) or ', '.join(one.statement.revokes)}  {one.told}"
