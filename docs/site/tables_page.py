"""The pages on settings, findings, ingestors and needs of a service, from what the commands use."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import crucible_lineage
from crucible_lineage.cli.doctor import FOLLOWS, NEEDS
from crucible_lineage.errors import BAD_INPUT, FAILURE, INTERRUPTED, ON_HOLD, UNREACHABLE
from crucible_lineage.lineage.checks import SEVERITIES
from crucible_lineage.server.ingest import INGESTORS, Ingestor

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

VARIABLES: Mapping[str, str] = {
    "CRUCIBLE_API_URL": "address of Crucible; without it (or with `--data`), the embedded one is used",
    "CRUCIBLE_API_KEY": "key for that address",
    "CRUCIBLE_PRIVILEGE_MODE": "`normal` or `elevated`, as for the official client",
    "CRUCIBLE_LINEAGE_DATA": "the data folder",
    "CRUCIBLE_LINEAGE_CACHE_GB": "space for copies of files, in GB (default 20)",
    "CRUCIBLE_LINEAGE_KEEP": "`no`: register neither source nor environment of steps",
    "CRUCIBLE_LINEAGE_CONTAINER": "the container image to record, `name:tag@sha256:...`, if it is not detected",
    "CRUCIBLE_LINEAGE_RETRY_SECONDS": "how long a call is repeated (default 90)",
    "CRUCIBLE_LINEAGE_RETRIES": "the largest number of attempts of a call (default 20)",
    "CRUCIBLE_LINEAGE_RETRY_AFTER_SECONDS": "the longest accepted `Retry-After` (default 300)",
    "CRUCIBLE_LINEAGE_LINK_HOSTS": "further hosts that signed links may lead to",
    "CRUCIBLE_LINEAGE_PRIVATE_LINKS": "`1`: signed links of a public service may lead to private addresses",
    "CRUCIBLE_LINEAGE_QUEUE": "the queue that `answer` takes requests from, with its password",
    "CRUCIBLE_LINEAGE_SERVE_KEY": "the key of the first user of `serve`",
    "CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S": "seconds that an ingestor of the embedded Crucible may take (default 30)",
    "CRUCIBLE_LINEAGE_INGEST_MEMORY_MB": "memory that an ingestor of the embedded Crucible may use (default 2048)",
    "CRUCIBLE_GRAPH_EXPLORER_URL": "address of the graph explorer that artifacts on Prefect link to",
}
EXIT_CODES = {
    0: "everything requested is done",
    FAILURE: "a step failed, Crucible refused a call, `verify` found an error, or the reader of the output exited",
    BAD_INPUT: "the request is wrong (an option, a declaration, a name, a correction); nothing was changed",
    UNREACHABLE: "Crucible did not answer, or Prefect where it is needed",
    ON_HOLD: "some results are doubtful, or not made, because data are on hold or lack a signature",
    INTERRUPTED: "stopped by Ctrl-C or SIGTERM; finished results are kept",
}
MEANINGS: Mapping[str, str] = {
    "cache-damaged": "a copy in the cache of this data folder does not match its hash",
    "changed-recipe": "the id does not follow from the recipe in the record",
    "changed-record": "the record contradicts its recipe or its own hash",
    "correction-overwritten": "another program wrote over a corrected value; the correction counts",
    "cycle": "datasets descend from themselves",
    "dangling-parent": "a parent does not exist or is not visible to you",
    "declared-twice": "several files declare a pipeline of this name; each keeps its results",
    "duplicate-recipe": "the same work has two ids",
    "file-added": "Crucible lists a file that was not registered",
    "file-changed": "Crucible lists a file with another hash than the registered one",
    "file-damaged": "the bytes do not match the hash, or cannot be read (with `--bytes`)",
    "file-missing": "a registered file is not listed",
    "current-twice": "several results are current in one slot",
    "incomplete": "a registration was not finished, or is in progress; the pipeline or `rerun MFID` finishes it",
    "input-changed": "a parent no longer has the file that this was made from",
    "made-of-superseded": "a current result has a superseded parent",
    "metadata-changed": "registered scientific metadata were edited or removed",
    "mismatch": "error: the record names a parent without an `is_derived_from` link; warning: a link that the record "
    "does not name",
    "missing-dataset": "a parent, or a registered dataset, is gone without a reviewed deletion",
    "not-ingested": "a file could not be read, or not by the requested ingestor",
    "older-than-parent": "the id is older than that of a parent",
    "orphan": "the dataset looks derived, but has no parent",
    "record-damaged": "the record does not fit the schema or its version, or its attached file is lost or changed",
    "record-missing": "the id was derived from a recipe, but there is no record",
    "self-link": "a dataset is linked to itself",
    "unknown-relationship": "a link has a type that Crucible does not know; a notice if it has no type",
    "withdrawn-holder": "deletion of the current result was requested, so an earlier one shows as current",
    "wrong-project": "the dataset is in another project than its record says, or than all its parents",
}


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
    rows = ((f"**{name}**", text, FOLLOWS[name]) for name, text in NEEDS.items())
    return "\n\n".join([NEEDS_PAGE, _table(("name", "needed", "else"), rows)]) + "\n"


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
