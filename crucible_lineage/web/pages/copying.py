"""A reader's first look at a project: its datasets are read into a copy of the reader's own, and the page says so."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from crucible_lineage.client.models import Project
from crucible_lineage.core.mirror import EVERYTHING
from crucible_lineage.web.reader import Reader, SignIn
from crucible_lineage.web.rendering import rendered

__all__ = ["still_reading"]

WAIT_S = 0.8  # a copy that was made before is looked through in a part of that
ASK_AGAIN_S = 2


def still_reading(reader: Reader, project: Project | None, here: str = "Datasets") -> Response | None:
    """A page that asks again, while the datasets of a project, or of all, are read the first time; None once they are.

    `here` is the tab of the page. What fails is raised where it is asked for next.
    """
    name = project.project_id if project else EVERYTHING
    copying = reader.sign_in.copies.of(name, partial(_copied, reader.sign_in, name))
    if copying.done_within(WAIT_S):
        return None
    page = rendered("reading.html", reader.name, project=project, here=here, begun=copying.begun.isoformat())
    page.headers["Refresh"] = str(ASK_AGAIN_S)
    return page


def _copied(sign_in: SignIn, project: str) -> None:
    with sign_in.session() as session:
        session.mirror.snapshot(project)
