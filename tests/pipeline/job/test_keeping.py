"""Support of results is kept: source and environment, each once in a project, without secrets."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.provenance.environment import container, environment_document, lock_text
from crucible_lineage.session import Session

pytestmark = pytest.mark.usefixtures("keeping")


def supports(session: Session, kind: str) -> list[Any]:
    return session.client.datasets.list(project_id="lab", measurement=kind, limit=None)


def record_of(session: Session, mfid: str) -> dict[str, Any]:
    return dict(session.client.datasets.get(mfid, include_metadata=True).scientific_metadata["crucible_lineage"])


def archive_of(session: Session, mfid: str) -> zipfile.ZipFile:
    archive = record_of(session, mfid)["activity"]["code"]["archive"]
    (file,) = session.client.files.list(archive["mfid"])
    assert (file.filename, file.sha256_hash) == (archive["name"], archive["sha256"])
    path = session.client.files.download(file, session.settings.data / "looked-at")
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


def test_source_and_environment_are_registered_once_and_named_in_each_record(
    lab: Any, session: Session, run: Any
) -> None:
    lab.declare(lab.pipeline.read_text() + f"  split:\n    uses: {lab.module}:split\n    inputs: {{counts: first}}\n")
    first = run(lab.pipeline)
    again = run(lab.pipeline, **{"scaled__factor": 5})
    assert (len(supports(session, "source of steps")), len(supports(session, "environment of steps"))) == (1, 1)
    results = [mfid for done in (first, again) for made in done.datasets.values() for mfid in made.values()]
    support = {
        (record["activity"]["code"]["archive"]["mfid"], record["software"]["environment"]["mfid"])
        for record in (record_of(session, mfid) for mfid in results)
    }
    assert len(support) == 1
    archive = archive_of(session, results[0])
    assert archive.namelist() == [f"{lab.module}.py"]
    assert archive.read(f"{lab.module}.py") == (lab.folder / f"{lab.module}.py").read_bytes()
    shown = list_datasets(session, "lab", every=True)
    assert {entry.mfid for entry in shown.entries} == {*results, *(m for ms in first.inputs.values() for m in ms)}
    assert (again.delivered, again.waiting) == ((), ())


def test_keeping_sources_does_not_change_ids(
    lab: Any, session: Session, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_KEEP", "no")
    before = run(lab.pipeline)
    assert not supports(session, "source of steps")
    record = record_of(session, before.datasets["scaled"]["out"])
    assert "archive" not in record["activity"]["code"]
    monkeypatch.delenv("CRUCIBLE_LINEAGE_KEEP")
    after = run(lab.pipeline)
    assert (after.executed, after.datasets) == ([], before.datasets), "records made before stay current"


def test_an_edit_makes_another_archive_and_a_failed_step_makes_none(lab: Any, session: Session, run: Any) -> None:
    code = lab.folder / f"{lab.module}.py"
    lab.declare(
        f"pipeline: odd\nproject: lab\ninputs:\n  first: {{file: first.txt}}\n"
        f"steps:\n  bad:\n    uses: {lab.module}:fail\n    inputs: {{counts: first}}\n"
    )
    run(lab.pipeline)
    assert not supports(session, "source of steps")
    lab.declare(lab.pipeline.read_text().replace(":fail", ":scale"))
    run(lab.pipeline)
    code.write_text(code.read_text().replace("* factor", "* factor + 1"))
    sys.modules.pop(lab.module)
    changed = run(lab.pipeline)
    assert len(supports(session, "source of steps")) == 2
    found = archive_of(session, changed.datasets["bad"]["out"])
    assert b"* factor + 1" in found.read(f"{lab.module}.py")


def test_secrets_and_files_elsewhere_are_left_out_and_named(
    lab: Any, session: Session, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "shared.csv").write_text("1\n")
    lab.file("curve.csv", "0.5\n")
    lab.file("site.pem", "just a certificate\n")
    lab.file("token.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n")
    lab.file("database.txt", "postgres://ada:hunter2@host/spectra\n")
    lab.file("template.txt", "postgres://{user}:{password}@host/spectra\n")
    reads = "curve.csv, database.txt, site.pem, template.txt, token.txt, ../shared.csv"
    lab.declare(lab.pipeline.read_text().replace("params: {factor: 3}", f"params: {{factor: 3}}\n    reads: [{reads}]"))
    done: RunResult = run(lab.pipeline)
    mfid = done.datasets["scaled"]["out"]
    assert archive_of(session, mfid).namelist() == ["curve.csv", f"{lab.module}.py", "template.txt"]
    left_out = record_of(session, mfid)["activity"]["code"]["left_out"]
    assert [text.partition(":")[0] for text in left_out] == ["shared.csv", "database.txt", "site.pem", "token.txt"]
    assert "not kept of its source: shared.csv" in done.notes["scaled"]


def test_the_script_of_a_command_is_kept_with_its_imports_and_the_program_is_recorded(
    lab: Any, session: Session, run: Any
) -> None:
    lab.file("fit.py", "import sys, shutil\nfrom helpers import double\nshutil.copy(sys.argv[1], sys.argv[2])\n")
    (lab.folder / "helpers").mkdir()
    lab.file("helpers/__init__.py", "from .twice import double\n")
    lab.file("helpers/twice.py", "from helpers.numbers import TWO\n\n\ndef double(x):\n    return TWO * x\n")
    lab.file("helpers/numbers.py", "TWO = 2\n")
    lab.file("unrelated.py", "1 / 0\n")
    lab.declare(
        "pipeline: fits\nproject: lab\ninputs:\n  first: {file: first.txt}\nsteps:\n  fit:\n"
        f"    run: '{sys.executable} fit.py {{inputs.first}} {{out}}'\n    inputs: {{first: first}}\n"
    )
    mfid = run(lab.pipeline).datasets["fit"]["out"]
    assert archive_of(session, mfid).namelist() == [
        "fit.py",
        *(f"helpers/{name}.py" for name in ("__init__", "numbers", "twice")),
    ]
    program = record_of(session, mfid)["activity"]["code"]["program"]
    assert program["sha256"] == file_sha256(Path(sys.executable).resolve())
    assert program["path"] == str(Path(sys.executable).resolve())


def test_the_container_is_in_the_record(lab: Any, session: Session, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = "docker.io/lab/raman:2.1@sha256:" + "0" * 64
    monkeypatch.setenv("CRUCIBLE_LINEAGE_CONTAINER", image)
    container.cache_clear()
    mfid = run(lab.pipeline).datasets["scaled"]["out"]
    assert record_of(session, mfid)["software"]["container"] == image
    monkeypatch.delenv("CRUCIBLE_LINEAGE_CONTAINER")
    container.cache_clear()


def test_the_environment_is_a_lock_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRUCIBLE_API_KEY", "very-secret-key")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    document = environment_document()
    assert "very-secret-key" not in json.dumps(document)
    assert document["variables"]["OMP_NUM_THREADS"] == "3"
    assert len(document["packages"]["numpy"]["record_sha256"]) == 64
    lines = [line for line in lock_text(document).splitlines() if not line.startswith("#")]
    assert {Requirement(line).name for line in lines} >= {"numpy", "pydantic"}
    assert any(line.startswith("numpy: lib") for line in document["blas"]), "the wheel of numpy brings its own"


@pytest.mark.parametrize(
    ("recorded", "origin"),
    [
        ({"url": "https://me:secret@x.test:8443/a.whl?token=secret#secret"}, {"url": "https://x.test/a.whl"}),
        (
            {"url": "https://secret@x.test/a.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            {"url": "git+https://x.test/a.git@c0ffee"},
        ),
        ({"url": "file:///home/secret/a"}, {"local": True}),
    ],
)
def test_the_origin_of_a_distribution_is_recorded_without_credentials_and_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recorded: dict[str, Any], origin: dict[str, Any]
) -> None:
    folder = tmp_path / "odd-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (folder / "direct_url.json").write_text(json.dumps(recorded))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert environment_document()["packages"]["odd"] == {"version": "1.0", **origin}
