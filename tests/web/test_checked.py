"""Verdicts of checks are worded the same on the page, in notebooks and on the terminal."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.notebook.catalogue import Catalogue
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements import CHECK, About
from crucible_lineage.stating import state


def test_a_verdict_is_shown_once_in_all_interfaces(
    site: Any, record_of: Any, owner: httpx.Client, tmp_path: Path, monkeypatch: Any
) -> None:
    metadata = {"crucible_lineage": record_of((site.mfids["raw"],))}
    fields = {"dataset_name": "checked", "project_id": "open-lab", "public": True}
    mfid = str(site.client.datasets.create(fields, scientific_metadata=metadata).dsid)
    body = {
        "of": "p/fit",
        "checks": {"small": "rms < 1"},
        "verdicts": {mfid: {"small": {"passed": False, "values": {"rms": 2}}}},
    }
    verdict = "check small failed: rms < 1 (rms is 2)"

    with Session(Settings(tmp_path / "hers", site.client.api_url, site.key)) as session:
        state(session, "open-lab", CHECK, About((mfid,)), body=body)
        notebook = html.unescape(Catalogue(session).dataset(mfid)._repr_html_())
    monkeypatch.setenv("CRUCIBLE_API_URL", site.client.api_url)
    monkeypatch.setenv("CRUCIBLE_API_KEY", site.key)
    monkeypatch.setenv("CRUCIBLE_LINEAGE_DATA", str(tmp_path / "his"))
    terminal = CliRunner().invoke(main, ["show", mfid]).stdout
    page = html.unescape(owner.get(f"/datasets/{mfid}").text)

    assert [text.count(verdict) for text in (notebook, terminal, page)] == [1, 1, 1]
    assert 'class="statements"' not in page, "it has no line of its own in addition"
