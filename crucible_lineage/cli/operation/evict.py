"""`evict`: room in the embedded Crucible, by letting go of what can be made again."""

from __future__ import annotations

import re
import sys

import click

from crucible_lineage.amounts import amount, size_text, time_text
from crucible_lineage.cli.options import announce, crucible_options, json_option, open_session, print_json
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain

__all__ = ["evict_command"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@click.command("evict")
@click.option("--to-free", required=True, metavar="SIZE", help="How much room is wanted, as in 20GB.")
@click.option("--trust-own", is_flag=True, help="Receipts from the machine that made a result count, too.")
@click.option("--dry-run", is_flag=True, help="List what would go; change nothing.")
@crucible_options
@json_option
def evict_command(to_free: str, trust_own: bool, dry_run: bool, as_json: bool) -> None:
    """Let go of bytes of results in the embedded Crucible that were made again elsewhere, byte for byte.

    Records stay. `get` and steps make the bytes again where they are needed. Measured data, what is published or on
    hold, and results of steps with `keep: forever` are never touched. Exit code 1 if less can go than was asked for.
    """
    from crucible_lineage.remake.evicting import evict, plan_eviction

    wanted = _bytes(to_free)
    with open_session() as session:
        plan = plan_eviction(session, wanted, trust_own=trust_own)
        freed = plan.bytes if dry_run else evict(session, plan)
        if not as_json:
            announce(session)
    if as_json:
        print_json({**plan.to_json(), "freed": freed, "dry_run": dry_run})
    else:
        for one in plan.goes:
            click.echo(plain(f"{one.mfid}  {size_text(one.bytes):>8}  {time_text(one.seconds)} to make  {one.name}"))
        done = "would be freed" if dry_run else "freed"
        made = f"{time_text(plan.seconds)} to make all again" if plan.goes else ""
        click.echo(", ".join(filter(None, (f"{amount(len(plan.goes), 'result')}, {size_text(freed)} {done}", made))))
        for reason, size in plan.stays.items():
            click.echo(plain(f"stays: {size_text(size)}: {reason}"))
    if freed < wanted:
        click.echo(f"note: {size_text(wanted)} were requested; no more can be evicted", err=True)
        sys.exit(1)


def _bytes(said: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", said.strip(), re.IGNORECASE)
    unit = found[2].upper() if found else ""
    if found is None or (unit and not unit.endswith("B")):
        raise InputError(f"evict --to-free {said}: give a size, as in 500MB or 20GB")
    return int(float(found[1]) * _UNITS[unit])
