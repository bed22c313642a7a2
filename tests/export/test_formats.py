"""PROV and RO-Crate metadata: they give the same graph back and state what was recorded."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from prov.model import ProvDerivation, ProvDocument, ProvMembership

from crucible_lineage.lineage.crate import CrateHeader, make_crate
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.prov import exported, render_prov_json, shared_record, with_hidden_parents
from crucible_lineage.lineage.text import render_graphml

HEADER = CrateHeader("it", "what it is", "2026-01-01T00:00:00+00:00", "a Crucible", "urn:x:crucible")
EVIL = "<script>alert(1)</script>\"'`]]>\x1b[2J\u2028\n,=1+1\\{}%"
KINDS = [
    Edge("sample", "raw", "measured-from"),
    Edge("raw", "made"),
    Edge("set", "raw", "is_part_of"),
    Edge("raw", "other", ""),
    Edge("made", "other", "is_like"),
]


def read_back(graph: LineageGraph) -> ProvDocument:
    """Return the document that the text holds."""
    return ProvDocument.deserialize(content=render_prov_json(graph), format="json")


def test_prov_holds_every_link_of_the_lineage(made: Any) -> None:
    ends = {
        (source.localpart, target.localpart)
        for record in read_back(made.graph).get_records(ProvDerivation)
        for target, source in [[value for _, value in record.formal_attributes[:2]]]
    }
    assert ends == {(made.first, made.scaled), (made.scaled, made.total), (made.second, made.total)}


def test_prov_says_each_kind_of_link_in_its_own_words() -> None:
    nodes = [Node("sample", "sample", "wafer"), *(Node(name, name=EVIL) for name in ("raw", "made", "set", "other"))]
    read = read_back(LineageGraph(nodes, KINDS))
    text = read.get_provn()
    assert "wasDerivedFrom(mfid:raw, mfid:sample, -, -, -, [prov:type='cl:measured-from'])" in text
    assert "wasDerivedFrom(mfid:made, mfid:raw" in text
    assert "wasInfluencedBy(mfid:other, mfid:raw)" in text
    assert 'wasInfluencedBy(mfid:other, mfid:made, [cl:relationship="is_like"])' in text
    assert len(list(read.get_records(ProvMembership))) == 1


def by_id(metadata: Any) -> dict[str, Any]:
    return {entity["@id"]: entity for entity in metadata["@graph"]}


def test_the_crate_says_who_used_what_for_which_parameter(made: Any) -> None:
    metadata, files = make_crate(exported(made.graph), HEADER)
    entities = by_id(metadata)
    (action,) = [entity for entity in entities.values() if entity.get("name") == "execution of scale"]
    used, factor = (entities[ref["@id"]] for ref in action["object"])
    assert used["identifier"] == made.first
    assert entities[used["exampleOfWork"]["@id"]]["name"] == "counts"
    assert (factor["name"], float(factor["value"])) == ("factor", 3)
    assert entities[action["result"]["@id"]]["identifier"] == made.scaled
    code = {file.path: file.text for file in files}
    (source,) = [entity["@id"] for entity in entities.values() if entity.get("about") == action["instrument"]]
    assert "def scale(" in code[source]


def test_every_reference_in_a_crate_leads_to_an_entity_of_it(made: Any) -> None:
    nodes = [Node("sample", "sample", EVIL), *(Node(name, name=EVIL) for name in ("raw", "made", "set", "other"))]
    for graph in (made.graph, LineageGraph(nodes, [*KINDS, Edge("hidden one", "raw")])):
        metadata, _ = make_crate(exported(graph), HEADER)
        known = by_id(metadata).keys() | {"https://w3id.org/ro/crate/1.1"}
        assert set(references(metadata["@graph"])) <= known


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        if value.keys() == {"@id"}:
            return [value["@id"]]
        return [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def test_names_are_no_markup_in_the_readme_of_a_crate() -> None:
    header = CrateHeader(EVIL, EVIL, "2026-01-01", EVIL, "urn:x:crucible")
    _, files = make_crate(exported(LineageGraph([Node("a")])), header)
    (readme,) = [file for file in files if file.path == "README.md"]
    assert "<script" not in readme.text
    assert "\x1b" not in readme.text


def test_a_hidden_id_in_a_note_or_a_parameter_is_replaced_too() -> None:
    secret = "0td40y80027sn1w6x3snq5t6rc"
    written = {
        "used": [{"role": "in", "mfid": secret, "files": [{"name": "secret.h5", "sha256": "ab" * 32, "size": 1}]}],
        "recipe": {"params": {"from": f"crucible:{secret}"}, "inputs": {"in": [{"mfid": secret, "files": {}}]}},
        "activity": {"step": "s", "function": "m:s", "code": {"source": f"# {secret}", "fingerprint": "f"}},
        "supersedes": secret,
    }
    record = {"unique_id": "d", "dataset_name": "d", "scientific_metadata": {"crucible_lineage": written}}
    graph = with_hidden_parents(LineageGraph.from_records([record]))
    metadata, files = make_crate(exported(graph), HEADER)
    texts = [render_prov_json(graph), json.dumps(metadata)]
    for text in [render_graphml(graph), *texts, *(file.text for file in files)]:
        assert not re.search(f"{secret}|secret.h5|{'ab' * 32}", text)
    assert all("crucible:hidden-1" in text for text in texts)


def test_a_superseded_dataset_is_named_only_beside_itself() -> None:
    old = {"unique_id": "0td40y80027sn1w6x3snq5t6rc", "dataset_name": "old"}
    written = {"used": [], "recipe": {"params": {}}, "supersedes": old["unique_id"]}
    new = {"unique_id": "new", "dataset_name": "new", "scientific_metadata": {"crucible_lineage": written}}
    for records, is_named in (([new, old], True), ([new], False)):
        shared = [shared_record(node) for node in exported(LineageGraph.from_records(records)).nodes.values()]
        assert (f'"supersedes": "{old["unique_id"]}"' in json.dumps(shared)) == is_named


@pytest.mark.parametrize(
    ("library", "kind", "package"), [("prov", "prov-json", "export"), ("rocrate", "zip", "export")]
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    made: Any, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch, library: str, kind: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    ran = invoke("lineage", made.total, "--data", made.data, "--format", kind, "-o", tmp_path / "it")
    assert ran.exit_code == 2
    assert f"pip install 'crucible-lineage[{package}]'" in ran.stderr
    assert not list(tmp_path.glob("*it*"))
