"""Corrections from a dataset's page: the actions of the commands, with the reader's rights."""

from __future__ import annotations

import pytest


@pytest.fixture
def mfid(site):
    return site.client.datasets.create({"dataset_name": "to correct", "project_id": "open-lab", "public": True}).dsid


def post(browser, site, mfid, **form):
    return browser.post(f"/datasets/{mfid}/corrections", data=form, headers={"Origin": site.url})


def test_each_action_has_a_form_and_is_recorded(site, mfid):
    with site.browser() as owner:
        page = owner.get(f"/datasets/{mfid}").text
        for act in ("set", "delete"):
            assert f'name="act" value="{act}"' in page
        raw = site.mfids["raw"]
        for form in (
            {"act": "set", "field": "metadata", "key": "power_mW", "value": "5", "why": "typed wrong"},
            {"act": "set", "field": "measurement", "value": "XRD"},
            {"act": "set", "field": "dataset_name", "value": "corrected"},
            {"act": "set", "field": "parent+", "value": raw},
            {"act": "set", "field": "parent-", "value": raw},
            {"act": "set", "field": "sample", "value": site.mfids["sample"]},
        ):
            assert post(owner, site, mfid, **form).status_code == 303, form
        found = site.client.datasets.get(mfid, include_metadata=True, include_links=True)
        assert (found.dataset_name, found.measurement) == ("corrected", "XRD")
        assert found.scientific_metadata["power_mW"] == 5
        assert {link.resource_type for link in found.links} == {"sample"}
        page = owner.get(f"/datasets/{mfid}").text
        for expected in (
            "metadata.power_mW nothing -&gt; 5",
            "typed wrong",
            f"parent nothing -&gt; &#39;{raw}&#39;",
            f"parent &#39;{raw}&#39; -&gt; nothing",
            "sample nothing",
        ):
            assert expected in page
        assert post(owner, site, mfid, act="delete", why="junk").status_code == 303
        assert site.client.datasets.get(mfid).deletion_request


def test_an_invalid_action_is_refused_and_changes_nothing(site, mfid):
    with site.browser() as owner:
        for form, expected in (
            ({"act": "set", "field": "timestamp", "value": "soon"}, "2024-05-10T12:00:00Z"),
            ({"act": "set", "field": "metadata", "value": "5"}, "the key"),
            ({"act": "set", "field": "parent+", "value": "nobody's"}, "nobody"),
            ({"act": "set", "field": "sample"}, "name a sample"),
            ({"act": "dance"}, "there is no action"),
        ):
            answer = post(owner, site, mfid, **form)
            assert answer.status_code == 400
            assert expected in answer.text
        other = owner.post(
            f"/datasets/{mfid}/corrections",
            data={"act": "set", "field": "measurement", "value": "x"},
            headers={"Origin": "http://evil"},
        )
        assert other.status_code == 403
    assert site.client.datasets.get(mfid).dataset_name == "to correct"


def test_a_guest_has_no_forms_and_is_refused(site, mfid):
    with site.browser(site.guest_key) as guest:
        assert "Correct this dataset" not in guest.get(f"/datasets/{mfid}").text
        assert post(guest, site, mfid, act="set", field="dataset_name", value="x").status_code == 403
    assert site.client.datasets.get(mfid).dataset_name == "to correct"


def test_a_hold_is_placed_shown_and_lifted_and_a_result_is_signed(site, mfid):
    with site.browser() as owner:
        page = owner.get(f"/datasets/{mfid}").text
        for act in ("hold", "lift", "sign"):
            assert f'name="act" value="{act}"' in page
        assert "give the reason" in post(owner, site, mfid, act="hold").text
        assert post(owner, site, mfid, act="hold", why="detector saturated").status_code == 303
        page = owner.get(f"/datasets/{mfid}").text
        assert "detector saturated" in page
        assert post(owner, site, mfid, act="lift", why="another one").status_code == 303
        assert (
            "there is no hold, flag, signature, certificate in force"
            in post(owner, site, mfid, act="lift", why="again").text
        )
        assert post(owner, site, mfid, act="hold", why="weak", flag="dim").status_code == 303
        assert "dim" in owner.get(f"/datasets/{mfid}").text
        assert post(owner, site, mfid, act="sign", why="looked at it").status_code == 303
        assert "looked at it" in owner.get(f"/datasets/{mfid}").text
