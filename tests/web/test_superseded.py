"""Lists, a dataset's page and its lineage mark superseded datasets and link to the current ones."""

from __future__ import annotations

import re

import pytest


@pytest.fixture
def totals(site, record_of):
    """Make two results of one slot, the second of which is current, both from a public dataset."""
    mfids = []
    for number, name in enumerate(("earlier total", "later total")):
        since = f"2026-05-01T12:0{number}:00+00:00"
        slots = {"counting/add/out/first.txt": {"since": since, "run": "r", "declared_in": "p.yaml"}}
        provenance = record_of((site.mfids["raw"],))
        provenance["recipe"]["params"]["factor"] = name
        fields = {"dataset_name": name, "project_id": "open-lab", "public": True}
        metadata = {"crucible_lineage": provenance, "crucible_lineage_places": slots}
        mfids.append(site.client.datasets.create(fields, scientific_metadata=metadata).dsid)
        site.client.datasets.link_parent_child(site.mfids["raw"], mfids[-1], "is_derived_from")
    return mfids


def test_a_superseded_dataset_is_marked_and_links_to_the_current_one(site, totals, owner):
    earlier, later = totals
    page = owner.get(f"/datasets/{earlier}").text
    banner = re.search(r'<p class="superseded">.*', page)
    assert banner
    assert f'<a href="/datasets/{later}">later total</a>' in banner[0]
    assert "2026-05-01 12:01 UTC" in banner[0]
    assert "state mild" in page
    assert 'class="superseded"' not in owner.get(f"/datasets/{later}").text
    row = r"{}.*?<td><span class=\"state (\w+)\">(\w+)</span>"
    listed = re.sub(r"\s+", " ", owner.get("/projects/open-lab?all=1").text)
    assert re.search(row.format(earlier), listed)[2] == "superseded"
    assert re.search(row.format(later), listed).groups() == ("good", "current")
    near = owner.get(f"/datasets/{site.mfids['raw']}/lineage.svg?near").text
    assert earlier not in near
    assert later in near
    assert "1 superseded result not shown" in near


def test_a_comparison_hides_what_the_reader_may_not_see(site, owner, guest, record_of):
    fields = {"dataset_name": "child of one", "project_id": "open-lab", "public": True, "measurement": "XRD"}
    written = record_of((site.mfids["raw"],))
    facts = {"parts": [{"name": "told name", "metadata": {"power_mW": 5}}]}
    written["recipe"] |= {"version": 2, "facts": facts}
    metadata = {"crucible_lineage": written}
    other = site.client.datasets.create(fields, scientific_metadata=metadata).dsid
    site.client.datasets.link_parent_child(site.mfids["raw"], other, "is_derived_from")
    for old, new in ((site.mfids["child"], other), (other, site.mfids["child"])):
        by_owner, by_guest = (browser.get(f"/compare?old={old}&new={new}").text for browser in (owner, guest))
        assert "told name" in by_owner
        assert "told name" not in by_guest
        assert site.mfids["secret"] not in by_guest
        assert "child of one" in by_guest


def test_facts_about_a_parent_are_shown_to_those_who_may_see_it(site, owner, guest, record_of):
    written = record_of((site.mfids["secret"],))
    written["recipe"]["facts"] = {"parts": [{"name": "secret raw", "metadata": {"power_mW": 5}}]}
    fields = {"dataset_name": "with facts", "project_id": "open-lab", "public": True}
    mfid = site.client.datasets.create(fields, scientific_metadata={"crucible_lineage": written}).dsid
    for path in (f"/datasets/{mfid}", f"/datasets/{mfid}/metadata.json", f"/datasets/{mfid}/lineage.html"):
        assert "secret raw" not in guest.get(path).text
    page = owner.get(f"/datasets/{mfid}").text
    assert "Facts about its parents" in page
    assert page.index("secret raw") < page.index("power_mW")
