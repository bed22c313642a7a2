"""What leaves contains no secret: canaries of 30 kinds, at every door that text leaves by."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.text.masking import masked, masked_text

pytestmark = pytest.mark.usefixtures("keeping")


class Canaries:
    """Secrets by kind, each with a text of its own, so that the one that leaves is named."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __call__(self, kind: str, form: str = "{}") -> str:
        """Return the canary of a kind in this form."""
        number = len(self.texts) + 17
        self.texts.setdefault(kind, form.format(f"CANARY{number}X{number * 7919:08d}"))
        return self.texts[kind]

    def found_in(self, content: bytes) -> list[str]:
        """Return the kinds whose canary is in these bytes."""
        return [
            kind
            for kind, text in self.texts.items()
            if text.encode() in content or base64.b64encode(text.encode()).rstrip(b"=")[:-1] in content
        ]


def unpacked(content: bytes) -> Iterator[bytes]:
    """Yield the content, the members of archives, the rows of databases and the compressed data of pages in it."""
    yield content
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from unpacked(archive.read(name))
    if content.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content[:18] + b"\1\1" + content[20:])  # without its write-ahead log
            yield "\n".join(database.iterdump()).encode()
    for text in re.findall(rb"eN[A-Za-z0-9+/]{40,}={0,2}", content):
        with suppress(ValueError, zlib.error):
            yield zlib.decompress(base64.b64decode(text))


def leaks(canaries: Canaries, *folders: Path) -> list[tuple[str, str]]:
    """Return (file, kind) for each canary in the files of folders."""
    paths = [
        path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_socket()
    ]
    assert paths
    return [
        (str(path), kind)
        for path in paths
        for part in (str(path).encode(), *unpacked(path.read_bytes()))
        for kind in canaries.found_in(part)
    ]


STEPS = '''
import base64, json, os, subprocess
from pathlib import Path
from pydantic import SecretStr
from crucible_lineage import step

LEFT_OUT = "CONSTANT"  # reached by no step

def read() -> dict:
    return json.loads(Path(os.environ["CANARIES"]).read_text())

@step
def measure(counts: Path, *, token: SecretStr, out: Path) -> dict:
    """Measure, as in fetch(api_key='DOCSTRING')."""
    # once: https://ada:COMMENT@lab.test/x
    secrets, given, variable = read(), token.get_secret_value(), os.environ["LAB_TOKEN"]
    (out / "x.txt").write_text("1")
    print(f"from postgres://ada:{secrets['printed address']}@lab.test/spectra")
    print(f"password={secrets['printed name']}")
    print(f"Authorization: Bearer {secrets['printed header']}", flush=True)
    os.write(2, variable.encode() + b"\\n")
    print(base64.b64encode(f"me:{variable}".encode()).decode(), given, os.environ["PIP_INDEX_URL"])
    print(subprocess.run(["git", "remote", "-v"], cwd=Path(__file__).parent, capture_output=True, text=True).stdout)
    return {
        "source": f"postgres://ada:{secrets['metadata address']}@lab.test/spectra",
        "login": {"password": secrets["metadata name"], "header": f"Bearer {secrets['metadata header']}"},
        "tokens": [secrets["github token"], secrets["web token"], secrets["cloud key"]],
        "key": f"-----BEGIN PRIVATE KEY-----\\n{secrets['private key']}\\n-----END PRIVATE KEY-----",
        "told": f"with {given} and {variable}", f"of {variable}": 1,
        "hash": "ab" * 32, "array": base64.b64encode(bytes(range(256))).decode(),
    }

@step
def fail(counts: Path, *, out: Path) -> None:
    raise RuntimeError(f"no answer from https://ada:{read()['exception']}@lab.test, " + os.environ["LAB_TOKEN"])

@step
def die(counts: Path, *, out: Path) -> None:
    print("api_key:", read()["output of a death"], flush=True)
    os._exit(3)
'''


def test_no_canary_leaves(lab: Any, tmp_path: Path, command: Any, begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = Canaries()
    forms = {"github token": "ghp_{}" + "a" * 20, "web token": "eyJhbGciOiJI.eyJ{}.abcdef", "cloud key": "AKIA{:.16}"}
    kinds = re.findall(r"(?:secrets|read\(\))\[[\"']([a-z ]+)[\"']\]", STEPS)
    planted = {kind: canary(kind, forms.get(kind, "{}")) for kind in kinds}
    steps = STEPS.replace("CONSTANT", canary("constant", "ghp_{}" + "b" * 20)).replace("COMMENT", canary("comment"))
    lab.file(f"{lab.module}_leaks.py", steps.replace("DOCSTRING", canary("docstring")))
    (tmp_path / "canaries.json").write_text(json.dumps(planted))
    monkeypatch.setenv("CANARIES", str(tmp_path / "canaries.json"))
    for name, value in {
        "LAB_TOKEN": canary("variable"),
        "GIVEN": canary("declared parameter"),
        "PIP_INDEX_URL": f"https://{canary('index address')}@index.test/simple",
        "LAB_PROXY": f"http://ada:{canary('proxy')}@proxy.test:3128",
        "CRUCIBLE_LINEAGE_CONTAINER": f"docker://ada:{canary('container')}@registry.test/lab:1",
    }.items():
        monkeypatch.setenv(name, value)
    installed = tmp_path / "site" / "odd-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    origin = f"https://{canary('address of a package')}@index.test/odd.whl?token={canary('query of a package')}"
    (installed / "direct_url.json").write_text(json.dumps({"url": origin}))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    remote = f"https://ada:{canary('git remote')}@git.test/lab.git"
    for words in (["init", "-q"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", *words], cwd=lab.folder, check=True)
    lab.file("ending.py", "import os, sys\nprint(os.environ['T'] * 2)\nsys.exit(os.environ['T'])\n")
    script = f'["{sys.executable}", ending.py, "{{inputs.counts}}", "{{out}}"]'
    lab.declare(
        f"""
        pipeline: leaking
        project: lab
        env: [GIVEN, LAB_TOKEN]
        inputs:
          first:
            file: first.txt
            timestamp: "2024-05-01T12:00:00Z"
            dataset_name: "from https://ada:{canary("name")}@wiki.test"
            metadata: {{api_key: "{canary("declared metadata")}"}}
        steps:
          measured:
            uses: LABMODULE_leaks:measure
            inputs: {{counts: first}}
            params: {{token: "${{env.GIVEN}}"}}
            output: {{metadata: {{from: "ftp://ada:{canary("metadata of an output")}@lab.test"}}}}
          failed: {{uses: LABMODULE_leaks:fail, inputs: {{counts: first}}}}
          dead: {{uses: LABMODULE_leaks:die, inputs: {{counts: first}}, timeout: 60}}
          ended: {{run: {script}, env: {{T: "${{env.LAB_TOKEN}}"}}, inputs: {{counts: first}}}}
        """
    )
    served, own, out = tmp_path / "served", tmp_path / "own", tmp_path / "out"
    out.mkdir()
    answers: list[str] = []

    def call(*words: object, code: int = 0, **more: str) -> str:
        ran = command(*words, CRUCIBLE_LINEAGE_DATA=str(own), **more)
        assert ran.returncode == code, ran.stderr
        answers.extend((ran.stdout, ran.stderr))
        return str(ran.stdout)

    process = begin("serve", "--data", served, "--json")
    try:
        printed = json.loads(process.stdout.readline())
        key = (served / "crucible" / "api_key").read_text().strip()
        there = {"CRUCIBLE_API_URL": printed["url"], "CRUCIBLE_API_KEY": key}
        done = json.loads(call("run", lab.pipeline, "--engine", "local", "--json", code=1))
        mfid = done["datasets"]["measured"]["out"]
        assert done["outcomes"]["measured"] == "executed"
        changed = f"dataset_name=https://ada:{canary('correction')}@wiki.test"
        call("set", mfid, changed, "--why", f"token={canary('why')}")
        call("hold", mfid, "--why", f"wrong since password={canary('reason of a hold')}")
        call("register", lab.folder / "second.txt", "--project", "lab", "--note", f"--token {canary('note')}")
        call("project", "create", "lab", "--title", "A lab", **there)
        call("run", lab.pipeline, "--engine", "local", "--json", code=1, **there)  # its failure is stated
        for words in (
            ("show", mfid), ("show", mfid, "--log"), ("why", mfid), ("list", "--csv"), ("runs", "--json"),
            ("status", "--all"), ("status", "--metrics"), ("statements", "--json"), ("lineage", mfid),
        ):  # fmt: skip
            ran = command(*words, CRUCIBLE_LINEAGE_DATA=str(own))
            answers.extend((ran.stdout, ran.stderr))
        for name in ("x.zip", "x.html", "x.graphml", "x.prov-json"):
            kind = ("--format", name.partition(".")[2]) if "prov" in name else ()
            call("lineage", mfid, "-o", out / name, *kind)
        pages = printed["pages"].rstrip("/")
        with httpx.Client(base_url=pages, timeout=30) as browser:
            assert browser.post("/sign-in", data={"key": key}, headers={"Origin": pages}).status_code == 303
            for path in ("/", "/projects/lab", "/projects/lab/runs", "/projects/lab/findings", f"/datasets/{mfid}",
                         f"/datasets/{mfid}/metadata.json", f"/datasets/{mfid}/lineage.svg",
                         f"/datasets/{mfid}/lineage.html"):  # fmt: skip
                page = browser.get(path)
                assert page.status_code == 200, path
                answers.append(page.text)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert len(canary.texts) >= 30, len(canary.texts)
    told = [kind for answer in answers for part in unpacked(answer.encode()) for kind in canary.found_in(part)]
    assert (told, leaks(canary, own, served, out)) == ([], [])
    metadata = json.loads(next(answer for answer in answers if answer.startswith('{\n "')))
    assert (metadata["hash"], metadata["array"]) == ("ab" * 32, base64.b64encode(bytes(range(256))).decode())
    assert metadata["source"] == "postgres://***@lab.test/spectra"
    assert "/metadata/source" in metadata["crucible_lineage"]["masked"]


IN_CODE = """
from pathlib import Path
{constant}
def measure(counts: Path, *, url: str = "", login: dict = {{}}, password: str = "", out: Path) -> None:
    {inside}
    (out / {name}).write_text("1")
"""


@pytest.mark.parametrize(
    ("constant", "inside", "name", "how", "code"),
    [
        ("", "pass", "'x'", "params: {url: 'https://ada:CANARY7x1234567@lab.test'}", 2),
        ("", "pass", "'x'", "params: {url: 'see ghp_CANARY7x1234567aaaaaaaaaaaaaaaaaaaaa'}", 2),
        ("", "pass", "'x'", "params: {password: CANARY7x1234567}", 2),
        ("", "pass", "'x'", "params: {login: {apiKey: CANARY7x1234567}}", 2),
        ("", "pass", "'x'", "params: {url: '${env.LAB_TOKEN}'}", 2),
        ("API_KEY = 'CANARY7x1234567'", "API_KEY", "'x'", "", 2),
        ("", "password = 'CANARY7x1234567'", "'x'", "", 2),
        ("", "open('ftp://ada:CANARY7x1234567@lab.test')", "'x'", "", 2),
        ("", "import os", "os.environ['LAB_TOKEN']", "", 1),
        ("", "", "", "run: 'ls --token CANARY7x1234567 {inputs.counts} {out}'", 2),
        ("", "", "", "run: 'ls ftp://ada:CANARY7x1234567@lab.test {inputs.counts} {out}'", 2),
        ("", "", "", "run: 'ls {inputs.counts} {out}', env: {API_KEY: CANARY7x1234567}", 2),
    ],
)
def test_a_secret_in_an_identity_is_refused_with_a_way_out(
    lab: Any, tmp_path: Path, command: Any, constant: str, inside: str, name: str, how: str, code: int
) -> None:
    canary = Canaries()
    canary.texts["it"] = "CANARY7x1234567"
    lab.file(f"{lab.module}_code.py", IN_CODE.format(constant=constant, inside=inside, name=name))
    how = how if how.startswith("run") else ", ".join(filter(None, (f"uses: {lab.module}_code:measure", how)))
    lab.declare(
        f"""
        pipeline: refused
        project: lab
        env: [LAB_TOKEN]
        inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
        steps:
          measured: {{{how}, inputs: {{counts: first}}}}
        """
    )
    variable = canary.texts["it"] if "LAB_TOKEN" in name + how else "none"  # else each would be known by it
    ran = command("run", lab.pipeline, "--engine", "local", "--data", tmp_path / "data", LAB_TOKEN=variable)
    assert (ran.returncode, "secret" in ran.stderr) == (code, True), ran.stderr
    assert re.search("environment variable|env: |another name", ran.stderr), ran.stderr
    assert "CANARY" not in ran.stdout + ran.stderr
    assert leaks(canary, tmp_path / "data") == []


def test_a_file_name_with_a_secret_is_not_registered(lab: Any, tmp_path: Path, command: Any) -> None:
    canary = Canaries()
    path = lab.file(f"of-{canary('variable')}.txt", "1")
    ran = command("register", path, "--project", "lab", "--data", tmp_path, LAB_TOKEN=canary("variable"))
    assert (ran.returncode, "rename the file" in ran.stderr) == (2, True), ran.stderr
    assert leaks(canary, tmp_path / "crucible", tmp_path / "outbox") == []


@pytest.mark.parametrize(
    "text",
    [
        "0tr5k2ndm5zvd000nr21qakeh4", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "sha256:" + "ab" * 32, "deadbeef" * 8,
        "docker://python:3.11@sha256:" + "ab" * 32, "sftp://alice@host/x", "https://host:8080/a@b?mail=a@b.test",
        "abfss://data@account.dfs.core.windows.net/p", "postgres://{user}:{password}@host", "https://u:***@host/x",
        "token = os.environ['LAB_TOKEN']", "the token: missing", "secret_2024_run.csv", "tokens=1000000",
        '{"secret": "' + "0a" * 16 + '"}', "token=tests/data/x1.csv", "key=mass_amu", "monkey=banana12",
        "/data/2024-05-01/AP12345678 run_001.h5", "Si(111)-7x7 @ 300 K", "sk-learn-pipeline-estimators-2024",
        base64.b64encode(bytes(range(256)) * 40).decode(), "data:image/png;base64," + "iVBORw0KGgo" * 30,
    ],
)  # fmt: skip
def test_ordinary_values_of_science_pass(text: str) -> None:
    assert masked_text(text) == text
    assert masked({"sample": text, "token": "calcium", "secret": {"secret": "0a" * 16}})["sample"] == text
