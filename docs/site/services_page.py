"""The page on assumptions about a service, from those that runs and `doctor` test."""

from __future__ import annotations

from crucible_lineage.service import ASSUMPTIONS

__all__ = ["services_page"]

INTRODUCTION = """\
# Assumptions

Every assumption about a Crucible service, by the name that `doctor` prints. [Assumptions about a
service](../services.md) describes how each one is tested. Without those in bold, nothing can be registered.
"""


def services_page() -> str:
    """Return Markdown: one table, with a row for each assumption."""
    rows = ["| name | assumption | fallback | consequence |", "|---|---|---|---|"]
    for one in ASSUMPTIONS.values():
        name = f"**{one.name}**" if one.needed else one.name
        rows.append(f"| {name} | {one.holds} | {one.otherwise or 'none'} | {one.lost} |")
    return "\n\n".join([INTRODUCTION, "\n".join(rows)]) + "\n"
