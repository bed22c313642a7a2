"""Findings: what `crucible-lineage verify` says of a project, with the reader's eyes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from starlette.responses import RedirectResponse, Response

from crucible_lineage.lineage import Finding
from crucible_lineage.lineage.checks import worst_first
from crucible_lineage.lineage.labels import HIDDEN_NAME
from crucible_lineage.queries.verify.verify import Verification, verify_project
from crucible_lineage.web.reader import Reader, SignIn
from crucible_lineage.web.rendering import rendered
from crucible_lineage.web.shown import blotted

__all__ = ["findings"]

MOST = 200  # on the page; the command prints them all
WAIT_S = 1.5  # then the page says that it is being checked, and asks again
ASK_AGAIN_S = 2


def findings(reader: Reader) -> Response:
    """The findings of a project, the worst first; a large project is checked while the reader waits elsewhere."""
    project = reader.client.projects.get(reader.request.path_params["project"])
    work = partial(_verified, reader.sign_in, project.project_id)
    if "again" in reader.request.query_params:
        reader.sign_in.checks.of(project.unique_id, work, anew=True)
        return RedirectResponse(reader.request.url.path, 303)
    check = reader.sign_in.checks.of(project.unique_id, work)
    if not check.done_within(WAIT_S):
        page = rendered("checking.html", reader.name, project=project, begun=check.begun.isoformat())
        page.headers["Refresh"] = str(ASK_AGAIN_S)
        return page
    verified = check.result.result()
    ranked = worst_first(verified.findings)
    return rendered(
        "findings.html",
        reader.name,
        project=project,
        verified=verified,
        findings=[_shown(finding, verified.hidden) for finding in ranked[:MOST]],
        total=len(ranked),
        counts=Counter(finding.severity for finding in ranked),
        begun=check.begun.isoformat(),
        hidden_name=HIDDEN_NAME,
    )


def _verified(sign_in: SignIn, project: str) -> Verification:
    with sign_in.session() as session:
        return verify_project(session, project)


def _shown(finding: Finding, hidden: Collection[str]) -> Finding:
    return replace(
        finding,
        ids=tuple(blotted(mfid, hidden) for mfid in finding.ids),
        message=blotted(finding.message, hidden),
        command=blotted(finding.command, hidden),
    )
