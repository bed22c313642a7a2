"""Secrets of a flow appear nowhere in its registrations: records, metadata, names, files, artifacts, our log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

SECRETS = ("s3cr3t-of-the-lab", "pw-in-address", "pw-given", "tok-given", "key-in-a-file", "hunt3r")

PROGRAM = """
import json, sys
from pathlib import Path
from prefect import flow, task
from prefect.blocks.system import Secret
from crucible_lineage.tasks import CrucibleConnection, lineage, registering

folder = Path(sys.argv[1])
Secret(value="s3cr3t-of-the-lab").save("lab", overwrite=True)

@task
@lineage.options(dataset_name="rows for {user}")
def fetch(url: str, password: str, options: dict, user: str) -> dict:
    return {"rows": 3, "from": url}

@task
def use(text: str) -> list:
    return [len(text)]

@task
def ask() -> str:
    return Secret.load("lab").get()

@task
def wrap(n: int) -> dict:
    return {"header": {"authorization": "Bearer " + Secret.load("lab").get()}, "n": n}

@task
def sign_up(user: str) -> dict:
    return {"user": user, "password": "hunt3r", "token": "word"}

@task
def configure(out: Path) -> None:
    (out / "config.ini").write_text("password = " + Secret.load("lab").get())
    (out / "plain.ini").write_text("n = 3")

@task
def sign(key_file: Path, table: list) -> int:
    return len(key_file.read_text()) + len(table)

@flow
@registering("lab", crucible=CrucibleConnection(data=sys.argv[2]))
def process() -> list:
    text = Secret.load("lab").get()
    fetch("https://ada:pw-in-address@example.org/x", "pw-given", {"token": "tok-given", "n": 1}, text)
    found = use(text)
    rows = list(range(2000))  # so much is no parameter, but an input
    fetch("x", "pw-given", {"token": "tok-given", "rows": rows}, "ada")
    use({"rows": rows, "note": "by " + text})
    ask()
    wrap(3)
    for user in ("ada", "bob"):
        sign_up(user)
    (folder / "out").mkdir()
    configure(folder / "out")
    (folder / "server.key").write_text("key-in-a-file")
    return [sign(folder / "server.key", found), ask.fn() == text]

print(json.dumps(process()))
"""


def test_no_secret_is_kept(tmp_path: Path, data: Path, prefect: Any) -> None:
    ran = prefect.python("-c", PROGRAM, tmp_path, data)
    err = ran.stderr
    assert ran.returncode == 0, err
    assert ran.stdout.splitlines()[-1] == "[14, true]"
    kept = [path for path in data.rglob("*") if path.is_file()]
    found = [
        (path.relative_to(data).as_posix(), secret)
        for path in kept
        for secret in SECRETS
        if secret.encode() in path.read_bytes()
    ]
    assert found == []
    assert [secret for secret in SECRETS if secret in err] == []
    artifacts = prefect.post("artifacts/filter", {"artifacts": {"key": {"any_": ["lineage"]}}})
    assert [secret for artifact in artifacts for secret in SECRETS if secret in str(artifact["data"])] == []
    with Session(Settings(data)) as session:
        listed = session.client.datasets.list(project_id="lab", include_metadata=True, limit=None)
    names = {dataset.dataset_name for dataset in listed}
    assert "rows for ***" in names or any("rows for" in str(name) for name in names)
    files = {dataset.dataset_name: dataset.scientific_metadata for dataset in listed}
    assert any("plain.ini" in str(content) for content in files.values())
    assert "config.ini is left out" in err
    assert err.count("holds a secret; it is described, not stored") == 3
    assert err.count("the result of sign_up holds a secret; it is stored without it") == 1
    kept = {"user": "bob", "password": "***", "token": "word"}
    (signed,) = [content for content in files.values() if content and kept.items() <= content.items()]
    assert signed["flow"]["value"]["masked"] == ["value.json/password"]
