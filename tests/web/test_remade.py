"""Remade datasets are marked in lists and on their page, which also names steps that are not deterministic."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import REMAKE, About
from crucible_lineage.statements.stating import state


@pytest.fixture
def remade(site: Any, record_of: Any, tmp_path: Any) -> str:
    """Make a result that was remade elsewhere, once identically and once with differences."""
    fields = {"dataset_name": "made again", "project_id": "open-lab", "public": True}
    metadata = {"crucible_lineage": record_of((site.mfids["raw"],))}
    mfid = str(site.client.datasets.create(fields, scientific_metadata=metadata).dsid)
    with Session(Settings(tmp_path / "hers", site.client.api_url, site.key)) as session:
        for verdict, causes in (("identical", []), ("differs", ["the step is not deterministic: made twice here"])):
            receipt = {"predicate": {"verdict": verdict, "causes": causes, "differences": []}}
            body = {"verdict": verdict, "own": False, "architecture": "x86_64", "receipt": receipt}
            state(session, "open-lab", REMAKE, About((mfid,)), why=verdict, body=body)
    return mfid


def test_lists_and_pages_mark_remade_datasets(site: Any, owner: httpx.Client, remade: str) -> None:
    listed = re.sub(r"\s+", " ", owner.get("/projects/open-lab").text)
    row = next(one for one in listed.split("<tr>") if remade in one)
    assert "remade 1×" in row
    assert listed.count("remade 1×") == 1
    page = owner.get(f"/datasets/{remade}").text
    assert "Remade 1 time by 1 person on 1 architecture" in page
    assert 'class="varies">the step is not deterministic, as was found on' in page
    assert 'class="varies"' not in owner.get(f"/datasets/{site.mfids['raw']}").text
