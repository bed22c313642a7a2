"""`statements`: what people have stated about results, whether it is in force, and whether it counts."""

from __future__ import annotations

import click

from crucible_lineage.cli.options import announce, crucible_options, dataset_id, json_option, open_session, print_json
from crucible_lineage.core.stated import Heard
from crucible_lineage.lineage.labels import plain

__all__ = ["statements_command"]


@click.command("statements")
@click.argument("dataset", required=False)
@click.option("--project", metavar="P", help="Those that lie in this project; by default all that this key may see.")
@click.option("--all", "every", is_flag=True, help="What is not in force any more, too.")
@crucible_options
@json_option
def statements_command(dataset: str | None, project: str | None, every: bool, as_json: bool) -> None:
    """List what is stated about results, or about DATASET, the oldest first: holds, flags, whose statements count."""
    with open_session() as session:
        session.mirror.sync_statements()
        stated = session.stated
        if dataset is not None:
            from crucible_lineage.queries.catalogue.shown import show_dataset  # with pydantic, as --help need not have

            found = list(show_dataset(session, dataset_id(session, dataset)).statements)
        else:
            found = stated.all(None)
        if not as_json:
            announce(session)
    shown = [
        one
        for one in found
        if (every or one.in_force) and project in (None, one.statement.project) and (every or not one.statement.revokes)
    ]
    if as_json:
        print_json({"statements": [one.to_json() for one in shown]})
        return
    for one in shown:
        click.echo(plain(_line(one)))
    left = len(found) - len(shown)
    click.echo(
        f"{len(shown)} {'statement' if len(shown) == 1 else 'statements'}" + (f"; not listed: {left}" if left else "")
    )


def _line(one: Heard) -> str:
    return f"{one.statement.mfid}  {str(one.statement.about) or ', '.join(one.statement.revokes)}  {one.told}"
