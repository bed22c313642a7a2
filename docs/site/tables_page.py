"""The pages on settings, findings, ingestors and needs of a service, from what the commands use."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import crucible_lineage
from crucible_lineage.cli import EXIT_CODES
from crucible_lineage.cli.doctor import NEEDS
from crucible_lineage.lineage.checks import MEANINGS, SEVERITIES
from crucible_lineage.server.ingest import INGESTORS, Ingestor
from crucible_lineage.settings import VARIABLES

__all__ = ["findings_page", "ingestors_page", "needs_page", "settings_page", "severities"]

PACKAGE = Path(crucible_lineage.__file__).parent
SETTINGS = """\
# Settings and exit codes

Options win over variables, variables over the official client's configuration file. Prefect's own variables
(`PREFECT_API_URL`, `PREFECT_PROFILE`, `PREFECT_HOME`) apply; with an address, `run` uses Prefect. `NO_COLOR` gives
plain text."""
FINDINGS = """\
# Findings

Each finding of `verify` names its ids and, if there is one, the command that repairs it. An error makes
the exit code 1."""
INGESTORS_PAGE = """\
# Ingestors

The ingestors of the embedded Crucible, in the order in which they are tried. [Ingestion](../server.md#ingestion)
describes limits and tables."""

NEEDS_PAGE = """\
# Needs of a service

What `crucible-lineage doctor` tests of a Crucible service ([why](../server.md#what-a-service-has-to-do))."""


def settings_page() -> str:
    """Return Markdown: a table of variables, and one of exit codes."""
    variables = _table(("variable", "meaning"), ((f"`{name}`", text) for name, text in VARIABLES.items()))
    codes = _table(("code", "meaning"), ((str(code), text) for code, text in EXIT_CODES.items()))
    return "\n\n".join([SETTINGS, variables, "## Exit codes", codes]) + "\n"


def findings_page() -> str:
    """Return Markdown: a row for each kind of finding, with the severities that the code gives it."""
    severities_of = severities()
    rows = ((f"`{name}`", " or ".join(severities_of[name]), text) for name, text in MEANINGS.items())
    return "\n\n".join([FINDINGS, _table(("finding", "severity", "meaning"), rows)]) + "\n"


def ingestors_page() -> str:
    """Return Markdown: a row for each ingestor, with the suffixes of its files."""
    rows = ((f"`{one.name}`", " ".join(sorted(one.suffixes)), _reads(one)) for one in INGESTORS)
    return "\n\n".join([INGESTORS_PAGE, _table(("ingestor", "files", "reads"), rows)]) + "\n"


def needs_page() -> str:
    """Return Markdown: a row for each behaviour that is needed of a service."""
    return (
        "\n\n".join([NEEDS_PAGE, _table(("name", "needed"), ((f"**{name}**", text) for name, text in NEEDS.items()))])
        + "\n"
    )


def severities() -> Mapping[str, Sequence[str]]:
    """Return the severities of each kind of finding, as the package creates them; the worst first."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                kind, severity, *_ = (one.value if isinstance(one, ast.Constant) else None for one in node.args)
                if isinstance(kind, str) and isinstance(severity, str):
                    found[kind].add(severity)
    return {kind: [one for one in SEVERITIES if one in those] for kind, those in found.items()}


def _reads(ingestor: Ingestor) -> str:
    read = ingestor.read.func if isinstance(ingestor.read, partial) else ingestor.read
    return (read.__doc__ or "").partition("\n")[0].partition(" None ")[0].strip()


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])
