"""A dataset's page names the commands that change it, shows what they did, and changes nothing itself."""

from __future__ import annotations

import html
import re
import shlex

import pytest


@pytest.fixture
def mfid(site):
    return site.client.datasets.create({"dataset_name": "to correct", "project_id": "open-lab", "public": True}).dsid


def test_the_commands_on_the_page_change_the_dataset(site, mfid, owner, command, tmp_path):
    page = owner.get(f"/datasets/{mfid}").text
    commands = [shlex.split(html.unescape(line)) for line in re.findall(r"^crucible-lineage (.+)$", page, re.MULTILINE)]
    assert {name for name, *_ in commands} == {"set", "hold", "lift", "sign", "register", "delete"}

    for words in commands:
        if words[0] != "register":
            ran = command(*words, "--url", site.client.api_url, "--api-key", site.key, "--data", tmp_path)
            assert ran.returncode == 0, (words, ran.stderr)

    found = site.client.datasets.get(mfid, include_metadata=True)
    assert (found.measurement, found.scientific_metadata["power_mW"]) == ("XRD", 5)
    assert found.deletion_request
    page = owner.get(f"/datasets/{mfid}").text
    for expected in ("metadata.power_mW nothing -&gt; 5", 'class="lifted"'):
        assert expected in page


def test_a_page_changes_nothing(site, mfid, owner):
    assert owner.post(f"/datasets/{mfid}", headers={"Origin": site.url}).status_code == 405
    assert "<form" not in owner.get(f"/datasets/{mfid}").text.partition("</header>")[2]


def test_a_guest_sees_no_commands(mfid, guest):
    assert "crucible-lineage set" not in guest.get(f"/datasets/{mfid}").text
