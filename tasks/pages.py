"""The page of a dataset, for links in Prefect: of the service's explorer, or of `crucible-lineage serve`."""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit

from crucible_lineage.session import Session

__all__ = ["dataset_page"]

FACILITY = "crucible.lbl.gov"
EXPLORER = "https://crucible.lbl.gov/explore"  # as the official client has it


def dataset_page(session: Session, mfid: str, project: str = "") -> str:
    """The address of the dataset's page, empty where there is none: an embedded Crucible has no lasting address.

    `CRUCIBLE_GRAPH_EXPLORER_URL` names another explorer, as for the official client.
    """
    if session.settings.api_url is None:
        return ""
    parts = urlsplit(session.settings.api_url)
    explorer = os.environ.get("CRUCIBLE_GRAPH_EXPLORER_URL") or (EXPLORER if parts.hostname == FACILITY else "")
    if explorer:
        base = explorer.rstrip("/")
        return f"{base}/{quote(project)}/datasets/{mfid}" if project else ""
    return f"{parts.scheme}://{parts.netloc}/datasets/{mfid}"
