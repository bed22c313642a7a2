"""What people carry away: files of every format, and bundles, which are crates that a stranger checks offline."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.bundle import write_bundle
from crucible_lineage.session import Session
from tests.page import page_data

VALIDATORS = Path(__file__).parents[2] / ".venv" / "validators"


@pytest.fixture
def unpacked(made: Any, tmp_path: Path) -> Path:
    """Provide the bundle of `total`, unpacked."""
    write_bundle(made.session, made.total, tmp_path / "it.zip")
    return unpack(tmp_path / "it.zip")


def unpack(bundle: Path) -> Path:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(bundle.with_suffix(""))
    return bundle.with_suffix("")


def checked(folder: Path) -> tuple[int, str]:
    """Return exit code and output of the bundle's own verify.py, without site packages."""
    command = [sys.executable, "-I", "-S", str(folder / "verify.py")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not ran.stderr
    return ran.returncode, ran.stdout


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("it.svg", b"<svg"),
        ("it.png", b"\x89PNG\r\n"),
        ("it.html", b"<!DOCTYPE html>"),
        ("it.mmd", b"flowchart LR"),
        ("it.json", b"{"),
        ("it.graphml", b"<graphml"),
        ("it.dot", b"strict digraph"),
    ],
)
def test_the_ending_of_the_file_decides_its_format(
    made: Any, tmp_path: Path, invoke: Any, name: str, beginning: bytes
) -> None:
    ran = invoke("lineage", made.total, "--data", made.data, "-o", tmp_path / name)
    assert ran.exit_code == 0, ran.stderr
    assert (tmp_path / name).read_bytes().lower().startswith(beginning.lower())


def test_a_crate_has_the_bytes_where_its_metadata_says(unpacked: Path) -> None:
    metadata = json.loads((unpacked / "ro-crate-metadata.json").read_text())
    files = [one for one in metadata["@graph"] if "sha256" in one]
    assert len(files) == 5
    for file in files:
        assert hashlib.sha256((unpacked / file["@id"]).read_bytes()).hexdigest() == file["sha256"]


def test_a_crate_answers_the_questions_that_its_profile_is_for(unpacked: Path) -> None:
    """Those of the Workflow Run RO-Crate community, by what their published queries look for."""
    graph = json.loads((unpacked / "ro-crate-metadata.json").read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}

    def of(entity: dict[str, Any], name: str) -> list[dict[str, Any]]:
        found = entity.get(name, [])
        return [entities[one["@id"]] for one in (found if isinstance(found, list) else [found])]

    def kinds(entity: dict[str, Any]) -> set[str]:
        return {entity["@type"]} if isinstance(entity["@type"], str) else set(entity["@type"])

    workflow = entities["workflow.json"]
    executions = [entity for entity in graph if entity["@type"] == "CreateAction" and entity["@id"] != "#run"]
    assert len(executions) == 2
    for execution in executions:
        (tool,) = of(execution, "instrument")
        assert "SoftwareApplication" in kinds(tool), "how long does it take, and which version is it"
        assert tool["version"]
        assert {entity["name"] for entity in of(execution, "resourceUsage")} == {"elapsed time", "bytes written"}
        assert all(entity["propertyID"] and entity["unitCode"] for entity in of(execution, "resourceUsage"))
        assert {entity["name"] for entity in of(tool, "softwareRequirements")} == {"Python", "crucible-lineage"}
        assert of(tool, "mainEntity")[0]["name"] == "Python"
    (organized,) = [entity for entity in graph if entity["@type"] == "OrganizeAction"]
    assert [entity["name"] for entity in of(organized, "object") if entity["@type"] != "ControlAction"] == (
        ["how the steps were declared to run"]
    )
    for entity in (workflow, *of(workflow, "step")):
        for environment in of(entity, "buildInstructions"):
            assert (unpacked / environment["@id"]).read_text().startswith("# Python 3")
    given = {entity["name"] for entity in of(workflow, "input")}
    assert given == {"scale: counts", "scale: factor", "add: right"}
    connected = {
        (of(entity, "sourceParameter")[0]["name"], of(entity, "targetParameter")[0]["name"])
        for step in of(workflow, "step")
        for entity in of(step, "connection")
    }
    assert connected == {
        ("scale: counts", "counts"),
        ("scale: factor", "factor"),
        ("out", "left"),
        ("add: right", "right"),
    }


def test_the_crate_in_a_bundle_passes_the_validator_and_runcrate_reads_it(
    made: Any, unpacked: Path, tmp_path: Path
) -> None:
    assert_valid(unpacked, tmp_path)
    report = subprocess.run([judge("runcrate"), "report", unpacked], capture_output=True, text=True, timeout=60)
    assert report.returncode == 0, report.stderr
    assert report.stdout.count("action: #") == 3
    assert f"{made.first}/ <- " in report.stdout


def assert_valid(crate: Path, scratch: Path) -> None:
    """The crate passes roc-validator for its profile, at REQUIRED and RECOMMENDED, without network."""
    # Left out is a check that no crate with its workflow in a file passes (crs4/rocrate-validator issue 51).
    cache = Path(shutil.copy(VALIDATORS / "http-cache.sqlite", scratch))  # it writes there
    passes(without_configuration(crate, scratch), cache, "provenance-run-crate-0.5", "-s", "process-run-crate-0.5_5.1")


def without_configuration(crate: Path, scratch: Path) -> Path:
    """A copy whose OrganizeAction does not name the file of its configuration.

    The profile asks for it there; the validator refuses everything there that is no ControlAction.
    """
    copy = Path(shutil.copytree(crate, scratch / "bare"))
    path = copy / "ro-crate-metadata.json"
    metadata = json.loads(path.read_text())
    (organized,) = [one for one in metadata["@graph"] if one["@type"] == "OrganizeAction"]
    assert organized["object"].count({"@id": "configuration.json"}) == 1
    organized["object"].remove({"@id": "configuration.json"})
    path.write_text(json.dumps(metadata))
    return copy


def passes(crate: Path, cache: Path, profile: str, *more: object) -> None:
    options = ["-l", "recommended", "-p", profile, "--offline", "--cache-path", cache.with_suffix(""), *more]
    validator = [judge("rocrate-validator"), "-y", "validate", "--no-paging", "-v", *options, crate]
    ran = subprocess.run(validator, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout


def judge(name: str) -> str:
    """Return a command of the validators' environment, which `make test` creates."""
    found = shutil.which(name, path=VALIDATORS / "bin")
    assert found, f"{name} is not installed: make .venv/validators.installed"
    return found


def test_a_bundle_checks_itself(made: Any, unpacked: Path) -> None:
    code, output = checked(unpacked)
    assert code == 0, output
    assert "no findings in 4 datasets, 5 files of theirs" in output
    assert len(Path(unpacked / "verify.py").read_text().splitlines()) < 300
    listed = json.loads((unpacked / "bundle.json").read_text())
    assert listed["about"] == made.total
    assert {entry["mfid"] for entry in listed["datasets"]} == {made.first, made.second, made.scaled, made.total}
    assert (unpacked / "lineage.svg").exists()
    assert "<pre>python reproduce.py</pre>" in (unpacked / "ro-crate-preview.html").read_text()
    assert (unpacked / "ro-crate-metadata.json").exists()


Damage = Callable[[Path, Any], str]


def edit_record(folder: Path, mfid: str, edit: Callable[[Any], None]) -> None:
    """Change a record with `edit`, and its hash in the list, as a careful forger would."""
    path = folder / "records" / f"{mfid}.json"
    record = json.loads(path.read_text())
    edit(record["scientific_metadata"]["crucible_lineage"])
    path.write_text(json.dumps(record))
    relist(folder, path)


def relist(folder: Path, path: Path) -> None:
    def new_hash(bundle: Any) -> None:
        entries = [*bundle["others"], *(file for dataset in bundle["datasets"] for file in dataset["files"])]
        (entry,) = [entry for entry in entries if entry["path"] == path.relative_to(folder).as_posix()]
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    edit_list(folder, new_hash)


def edit_list(folder: Path, edit: Callable[[Any], None]) -> None:
    bundle = json.loads((folder / "bundle.json").read_text())
    edit(bundle)
    (folder / "bundle.json").write_text(json.dumps(bundle))


def damage_bytes(folder: Path, made: Any) -> str:
    (folder / "data" / made.first / "first.txt").write_text("9")
    return "holds other bytes"


def forge_bytes(folder: Path, made: Any) -> str:
    path = folder / "data" / made.first / "first.txt"
    path.write_text("9")
    relist(folder, path)
    return "has another SHA-256 than was registered"


def lose_a_file(folder: Path, made: Any) -> str:
    (folder / "data" / made.total / "note.txt").unlink()
    return "note.txt is not there"


def add_a_file(folder: Path, made: Any) -> str:
    (folder / "data" / made.total / "more.txt").write_text("x")
    return "does not belong to the bundle"


def change_a_parameter(folder: Path, made: Any) -> str:
    edit_record(folder, made.scaled, lambda record: record["recipe"]["params"].update(factor=4))
    return f"{made.scaled}: its id is not that of its recipe"


def change_what_was_used(folder: Path, made: Any) -> str:
    edit_record(folder, made.total, lambda record: record["used"].pop())
    return "and in its recipe differ"


def lose_a_link(folder: Path, made: Any) -> str:
    edit_list(folder, lambda bundle: bundle["links"].pop())
    return "but has no link to it"


def change_the_type_of_a_link(folder: Path, made: Any) -> str:
    edit_list(folder, lambda bundle: bundle["links"][-1].update(relationship="is_part_of"))
    return "but has no link to it"


def lose_a_parent(folder: Path, made: Any) -> str:
    edit_list(
        folder,
        lambda bundle: bundle.update(
            datasets=[dataset for dataset in bundle["datasets"] if dataset["mfid"] != made.second]
        ),
    )
    return f"{made.second}, which is not in the bundle"


def close_a_cycle(folder: Path, made: Any) -> str:
    link = {"parent": made.total, "child": made.first, "relationship": "is_derived_from"}
    edit_list(folder, lambda bundle: bundle["links"].append(link))
    return "close a cycle"


@pytest.mark.parametrize(
    "damage",
    [
        damage_bytes,
        forge_bytes,
        lose_a_file,
        add_a_file,
        change_a_parameter,
        change_what_was_used,
        lose_a_link,
        change_the_type_of_a_link,
        lose_a_parent,
        close_a_cycle,
    ],
)
def test_a_stranger_finds_the_damage(made: Any, unpacked: Path, damage: Damage) -> None:
    expected = damage(unpacked, made)
    code, output = checked(unpacked)
    assert code == 1
    assert expected in output


def test_a_folder_that_is_no_bundle_ends_with_code_2(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copy(unpacked / "verify.py", tmp_path / "empty")
    assert checked(tmp_path / "empty")[0] == 2


def test_nothing_of_a_parent_that_may_not_be_seen_is_in_what_is_taken_away(
    made: Any, colleague: Session, tmp_path: Path
) -> None:
    raw = str(made.session.client.files.list(made.first)[0].sha256_hash)
    write_bundle(colleague, made.total, tmp_path / "it.zip")
    folder = unpack(tmp_path / "it.zip")
    for path in filter(Path.is_file, folder.rglob("*")):
        content = path.read_bytes()
        if path.suffix == ".html":
            content += json.dumps(page_data(content.decode())).encode()
        for secret in (made.first, "first.txt", raw, made.first[-6:]):
            assert secret.encode() not in content, (path, secret)
            assert secret not in path.name
    code, output = checked(folder)
    assert code == 0, output
    assert f"{made.scaled}: its id could not be derived" in output
    assert json.loads((folder / "bundle.json").read_text())["hidden"] == [{"mfid": "hidden-1"}]


@pytest.mark.parametrize("kind", ["svg", "html", "mmd", "json", "graphml", "dot", "prov-json"])
def test_nothing_of_a_hidden_parent_is_in_any_format(made: Any, colleague: Session, invoke: Any, kind: str) -> None:
    where = ["--url", made.session.client.api_url, "--api-key", "colleague-key"]
    ran = invoke("lineage", made.total, *where, "--format", kind)
    assert ran.exit_code == 0, ran.stderr
    output = ran.stdout + (json.dumps(page_data(ran.stdout)) if kind == "html" else "")
    assert made.scaled in output or kind == "mmd"
    assert made.first not in output
    assert "first.txt" not in output


def test_a_lost_file_is_listed_as_absent_and_the_rest_is_packed(made: Any, tmp_path: Path, command: Any) -> None:
    (file,) = made.session.client.files.list(made.second)
    digest = str(file.sha256_hash)
    (made.data / "crucible" / "contents" / digest[:2] / digest[2:]).unlink()
    ran = command("lineage", made.total, "--data", made.data, "-o", tmp_path / "it.zip")
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.count(f"not included: {made.second}: ") == 1
    assert "4 datasets, 4 files, " in ran.stdout
    code, output = checked(unpack(tmp_path / "it.zip"))
    assert code == 0, output
    assert f"the bytes of {file.filename} are not in the bundle" in output
