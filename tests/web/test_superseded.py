"""Lists, the page of a dataset and its lineage tell what is superseded, and lead to what holds in its place."""

from __future__ import annotations

import re

import pytest


@pytest.fixture
def totals(site, record_of):
    """Two results of one place, the second of which holds; each made of a dataset that is public."""
    made = []
    for number, name in enumerate(("earlier total", "later total")):
        since = f"2026-05-01T12:0{number}:00+00:00"
        places = {"counting/add/out/first.txt": {"since": since, "run": "r", "declared_in": "p.yaml"}}
        provenance = record_of((site.mfids["raw"],))
        provenance["recipe"]["params"]["factor"] = name
        fields = {"dataset_name": name, "project_id": "open-lab", "public": True}
        metadata = {"crucible_lineage": provenance, "crucible_lineage_places": places}
        made.append(site.client.datasets.create(fields, scientific_metadata=metadata).dsid)
        site.client.datasets.link_parent_child(site.mfids["raw"], made[-1], "is_derived_from")
    return made


def test_what_is_superseded_says_so_and_leads_to_what_holds(site, totals, owner):
    earlier, later = totals
    page = owner.get(f"/datasets/{earlier}").text
    banner = re.search(r'<p class="superseded">.*', page)
    assert banner
    assert f'<a href="/datasets/{later}">later total</a>' in banner[0]
    assert "2026-05-01 12:01 UTC" in banner[0]
    assert "state mild" in page
    assert 'class="superseded"' not in owner.get(f"/datasets/{later}").text
    row = r"{}.*?<td><span class=\"state (\w+)\">(\w+)</span>"
    listed = re.sub(r"\s+", " ", owner.get("/projects/open-lab").text)
    assert re.search(row.format(earlier), listed)[2] == "superseded"
    assert re.search(row.format(later), listed).groups() == ("good", "current")
    near = owner.get(f"/datasets/{site.mfids['raw']}/lineage.svg?near").text
    assert earlier not in near
    assert later in near
    assert "1 superseded result not shown" in near


def test_a_comparison_names_nothing_that_the_reader_may_not_see(site, owner, guest, record_of):
    fields = {"dataset_name": "child of one", "project_id": "open-lab", "public": True, "measurement": "XRD"}
    written = record_of((site.mfids["raw"],))
    told_of = {"parts": [{"name": "secret raw", "metadata": {"power_mW": 5}}]}
    written["recipe"] |= {"version": 2, "facts": told_of}
    metadata = {"crucible_lineage": written}
    other = site.client.datasets.create(fields, scientific_metadata=metadata).dsid
    site.client.datasets.link_parent_child(site.mfids["raw"], other, "is_derived_from")
    for old, new in ((site.mfids["child"], other), (other, site.mfids["child"])):
        seen, told = (browser.get(f"/compare?old={old}&new={new}").text for browser in (owner, guest))
        assert "secret raw" in seen
        assert "secret raw" not in told
        assert site.mfids["secret"] not in told
        assert "child of one" in told


def test_facts_about_a_parent_are_shown_to_whom_its_parents_are(site, owner, guest, record_of):
    written = record_of((site.mfids["secret"],))
    written["recipe"]["facts"] = {"parts": [{"name": "secret raw", "metadata": {"power_mW": 5}}]}
    fields = {"dataset_name": "told", "project_id": "open-lab", "public": True}
    mfid = site.client.datasets.create(fields, scientific_metadata={"crucible_lineage": written}).dsid
    for path in (f"/datasets/{mfid}", f"/datasets/{mfid}/metadata.json", f"/datasets/{mfid}/lineage.html"):
        assert "secret raw" not in guest.get(path).text
    page = owner.get(f"/datasets/{mfid}").text
    assert "Facts about its parents" in page
    assert page.index("secret raw") < page.index("power_mW")
