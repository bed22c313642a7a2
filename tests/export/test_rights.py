"""Owners and licences of datasets and their project are stated in crates and bundles."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.bundle import write_bundle
from crucible_lineage.lineage.records import Creator, Rights, creator_of, license_iri, stated_rights

ADA = "0000-0002-1825-0097"


@pytest.mark.parametrize(
    ("stated", "name", "orcid"),
    [
        (f"Ada Lovelace ({ADA})", "Ada Lovelace", ADA),
        (f"Lovelace Ada <https://orcid.org/{ADA}>", "Lovelace Ada", ADA),
        (ADA, ADA, ADA),
    ],
)
def test_creators_are_read_with_their_orcid(stated: str, name: str, orcid: str) -> None:
    assert creator_of(stated) == Creator(name, orcid)


@pytest.mark.parametrize(
    ("stated", "iri"),
    [
        ("CC-BY-4.0", "https://spdx.org/licenses/CC-BY-4.0"),
        ("https://lab.example/terms", "https://lab.example/terms"),
        ("internal", ""),
        ("https://lab.example/terms and more", ""),
    ],
)
def test_only_common_names_and_urls_are_licences_that_programs_know(stated: str, iri: str) -> None:
    assert license_iri(stated) == iri


@pytest.mark.parametrize("odd", [{"license": 3}, {"creators": 7}, {"creators": [{}]}, {"rights": []}, {"license": " "}])
def test_odd_metadata_state_nothing(odd: dict[str, object]) -> None:
    assert stated_rights(odd) == Rights()


@pytest.fixture
def stated(made: Any) -> Any:
    """Set a licence and creators on the project, and another licence on `first`."""
    client = made.session.client
    people = [f"Ada L ({ADA})", {"name": "Grace H"}]
    client.metadata.merge(client.projects.get("lab").unique_id, {"license": "CC-BY-4.0", "creators": people})
    client.metadata.merge(made.first, {"license": "MIT", "rights": "Their Lab"})
    return made


def entities_of(crate: Path) -> dict[str, Any]:
    graph = json.loads(zipfile.Path(crate, "ro-crate-metadata.json").read_text())["@graph"]
    return {entity["@id"]: entity for entity in graph}


def test_a_crate_says_whose_its_data_are(stated: Any, tmp_path: Path) -> None:
    write_bundle(stated.session, stated.total, tmp_path / "crate.zip")
    entities = entities_of(tmp_path / "crate.zip")
    root, first, second = entities["./"], entities[f"data/{stated.first}/"], entities[f"data/{stated.second}/"]
    ada = {"@id": f"https://orcid.org/{ADA}"}
    assert root["license"] == second["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert first["license"] == entities[first["hasPart"]["@id"]]["license"] == {"@id": "https://spdx.org/licenses/MIT"}
    assert first["copyrightNotice"] == "Their Lab"
    assert root["author"] == second["author"] == [ada, {"@id": "#creator-Grace%20H"}]
    assert entities[ada["@id"]]["name"] == "Ada L"
    assert "not stated" not in json.dumps(list(entities.values()))
    assert "licence: CC-BY-4.0" in zipfile.Path(tmp_path / "crate.zip", "README.md").read_text()


def test_without_a_statement_the_crate_says_so_and_names_no_account_that_is_nobody(made: Any, tmp_path: Path) -> None:
    made.session.client.metadata.merge(made.first, {"license": "MIT"})
    write_bundle(made.session, made.total, tmp_path / "crate.zip")
    entities = entities_of(tmp_path / "crate.zip")
    licence = entities[entities["./"]["license"]["@id"]]
    assert licence["name"] == "not stated"
    assert "Some of the datasets have one of their own: MIT" in licence["description"]
    assert not [entity for entity in entities if str(made.session.agent["unique_id"]) in entity]
    assert "local" not in [entity["name"] for entity in entities.values() if entity["@type"] == "Person"]
