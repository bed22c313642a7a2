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
    """Return exit code and output of `sha256sum -c`."""
    command = ["sha256sum", "--check", "--strict", "--quiet", "manifest-sha256.txt"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout + ran.stderr


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

    executions = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert len(executions) == 2
    for execution in executions:
        (tool,) = of(execution, "instrument")
        assert "SoftwareApplication" in kinds(tool), "how long does it take, and which version is it"
        assert tool["version"]
        assert {entity["name"] for entity in of(execution, "resourceUsage")} == {"elapsed time", "bytes written"}
        assert all(entity["propertyID"] and entity["unitCode"] for entity in of(execution, "resourceUsage"))
        assert {entity["name"] for entity in of(tool, "softwareRequirements")} == {"Python", "crucible-lineage"}
        assert of(tool, "mainEntity")[0]["name"] == "Python"
        (environment,) = of(tool, "buildInstructions")
        assert (unpacked / environment["@id"]).read_text().startswith("# Python 3")
    given = [entity for execution in executions for entity in of(execution, "object")]
    assert [(entity["name"], [role["name"] for role in of(entity, "exampleOfWork")]) for entity in given] == [
        ("first", ["counts"]), ("factor", ["factor"]), ("first (scaled)", ["out", "left"]), ("second", ["right"]),
    ]  # fmt: skip


def test_the_crate_in_a_bundle_passes_the_validator_and_runcrate_reads_it(
    made: Any, unpacked: Path, tmp_path: Path
) -> None:
    """It passes roc-validator for its profile, at REQUIRED and RECOMMENDED, without network."""
    cache = Path(shutil.copy(VALIDATORS / "http-cache.sqlite", tmp_path))  # it writes there
    options = ["-l", "recommended", "-p", "process-run-crate-0.5", "--offline", "--cache-path", cache.with_suffix("")]
    validator = [judge("rocrate-validator"), "-y", "validate", "--no-paging", "-v", *options, unpacked]
    ran = subprocess.run(validator, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout
    report = subprocess.run([judge("runcrate"), "report", unpacked], capture_output=True, text=True, timeout=60)
    assert report.returncode == 0, report.stderr
    assert report.stdout.count("action: #") == 2
    assert f"{made.first}/ <- " in report.stdout


def judge(name: str) -> str:
    """Return a command of the validators' environment, which `make test` creates."""
    found = shutil.which(name, path=VALIDATORS / "bin")
    assert found, f"{name} is not installed: make .venv/validators.installed"
    return found


def test_a_bundle_has_everything_and_its_manifest_each_file(made: Any, unpacked: Path) -> None:
    assert checked(unpacked) == (0, "")
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    listed = {line.split("  ")[1] for line in (unpacked / "manifest-sha256.txt").read_text().splitlines()}
    assert files - listed == {"manifest-sha256.txt"}
    assert {Path(name).stem for name in listed if name.startswith("records/")} == (
        {made.first, made.second, made.scaled, made.total}
    )
    assert "lineage.svg" in listed
    assert "<pre>python reproduce.py</pre>" in (unpacked / "ro-crate-preview.html").read_text()


def test_a_record_in_a_bundle_gives_its_id_by_the_program_in_the_docs(made: Any, unpacked: Path) -> None:
    path = unpacked / "records" / f"{made.scaled}.json"
    command = [sys.executable, Path(__file__).parents[2] / "docs" / "verify_id.py", made.scaled, path]
    assert subprocess.run(command, timeout=60).returncode == 0
    path.write_text(path.read_text().replace('"factor": 3', '"factor": 4'))
    assert subprocess.run(command, timeout=60).returncode == 1


Damage = Callable[[Path, Any], str]


def damage_bytes(folder: Path, made: Any) -> str:
    (folder / "data" / made.first / "first.txt").write_text("9")
    return f"data/{made.first}/first.txt"


def lose_a_file(folder: Path, made: Any) -> str:
    (folder / "data" / made.total / "note.txt").unlink()
    return f"data/{made.total}/note.txt"


def change_a_parameter(folder: Path, made: Any) -> str:
    path = folder / "records" / f"{made.scaled}.json"
    path.write_text(path.read_text().replace('"factor": 3', '"factor": 4'))
    return f"records/{made.scaled}.json"


@pytest.mark.parametrize("damage", [damage_bytes, lose_a_file, change_a_parameter])
def test_a_stranger_finds_the_damage(made: Any, unpacked: Path, damage: Damage, invoke: Any, tmp_path: Path) -> None:
    expected = damage(unpacked, made)
    code, output = checked(unpacked)
    assert code == 1
    assert expected in output
    ran = invoke("reproduce", unpacked, "--here", "--data", tmp_path / "elsewhere")
    assert (ran.exit_code, f"{expected} is missing or holds other bytes" in ran.stderr) == (2, True), ran.stderr


def change_the_recipe(record: Any) -> None:
    record["recipe"]["params"]["factor"] = 4


def change_what_was_used(record: Any) -> None:
    record["used"].pop()


@pytest.mark.parametrize(
    ("edit", "message"),
    [(change_the_recipe, "is not the id of its recipe"), (change_what_was_used, "contradicts itself in what was used")],
)
def test_a_bundle_forged_with_its_manifest_does_not_lead_to_its_ids(
    made: Any, unpacked: Path, edit: Callable[[Any], None], message: str, invoke: Any, tmp_path: Path
) -> None:
    path, manifest = unpacked / "records" / f"{made.scaled}.json", unpacked / "manifest-sha256.txt"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    record = json.loads(path.read_text())
    edit(record["scientific_metadata"]["crucible_lineage"])
    path.write_text(json.dumps(record))
    manifest.write_text(manifest.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))
    assert checked(unpacked) == (0, "")
    ran = invoke("reproduce", unpacked, "--here", "--data", tmp_path / "elsewhere")
    assert (ran.exit_code, message in ran.stderr) == (2, True), ran.stderr


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
    assert checked(folder) == (0, "")
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    assert [entity["@id"] for entity in graph if entity["@id"].startswith("#hidden")] == ["#hidden-1"]


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
    folder = unpack(tmp_path / "it.zip")
    assert checked(folder) == (0, "")
    (line,) = [line for line in (folder / "README.md").read_text().splitlines() if "not included" in line]
    assert made.second in line
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    (entity,) = [entity for entity in graph if str(entity.get("description")).startswith("not included: ")]
    assert (entity["name"], entity["sha256"]) == (file.filename, digest)
