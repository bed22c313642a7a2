"""Code that others recorded: reading never runs it, and making again runs it by consent only, within limits."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.bundle import write_bundle
from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import LineageError
from crucible_lineage.notebook.catalogue import Catalogue
from crucible_lineage.provenance.recipe import generated_sha256
from crucible_lineage.remake.confine import Limits, RemakeError, network_cut, run_confined
from crucible_lineage.remake.kit import MANIFEST
from crucible_lineage.server.schema import seal_rows
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import by_night
from tests.runs import run
from tests.serving import start_server

pytestmark = pytest.mark.usefixtures("keeping")

MODULE = """
import contextlib
import json
import os
import resource
import socket
from pathlib import Path

from crucible_lineage import step


@step
def drawn(counts: Path, *, port: int, out: Path):
    with contextlib.suppress(OSError):  # bubblewrap lets it write nowhere else
        Path({marker!r}).touch()
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        is_connected = True
    except OSError:
        is_connected = False
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_DATA)]
    home = Path.home()
    said = {{"home": os.listdir(home), "is_mine": home.stat().st_uid == os.getuid(), "variables": dict(os.environ)}}
    (out / "said.json").write_text(json.dumps({{**said, "connected": is_connected, "limits": limits}}))
    return {{}}
"""
PIPELINE = """
pipeline: foreign
project: {project}
include: {{}}
inputs:
  first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z", public: true}}
steps:
  drawn: {{uses: {module}:drawn, inputs: {{counts: first}}, params: {{port: {port}}}, output: {{public: true}}}}
  counted: {{run: "sh count.sh {marker} {{inputs.first}} {{out}}", inputs: {{first: first}}, output: {{public: true}}}}
"""


class Foreign:
    """The results of a step and of a command, and the mark that their code leaves where it runs."""

    def __init__(self, lab: Any, session: Session, project: str, port: int, folder: Path) -> None:
        self.session, self.marker = session, folder / "ran"
        lab.file(f"{lab.module}.py", MODULE.format(marker=str(self.marker)))
        lab.file("count.sh", 'touch "$1"; wc -l < "$2" > "$3/count.txt"\n')
        text = PIPELINE.format(project=project, module=lab.module, port=port, marker=self.marker)
        lab.declare(text.replace("include: {}\n", ""))
        done = run(session, lab.pipeline)
        assert done.ok, done.errors
        self.drawn, self.counted = (done.datasets[step]["out"] for step in ("drawn", "counted"))
        self.marker.unlink()
        shutil.rmtree(lab.folder)


@pytest.fixture
def port() -> Iterator[int]:
    """Provide a port of this machine that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: [server.accept() for _ in range(100)], daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[dict[str, Session]]:
    """Provide ada and eve, each with a project of her own at one service."""
    with start_server(tmp_path / "service") as server, CrucibleClient(server.url, server.api_key) as admin:
        opened = {}
        for name in ("ada", "eve"):
            made: Any = admin._connection.call("POST", "/service_accounts", "make an account", body={"username": name})
            admin.projects.create(project_id=f"of-{name}", organization="lab", project_lead=name)
            opened[name] = Session(Settings(tmp_path / name, server.url, str(made["api_key"])))
        yield opened
        for session in opened.values():
            session.close()


@pytest.fixture
def foreign(accounts: dict[str, Session], lab: Any, port: int, tmp_path: Path) -> Foreign:
    """Provide public results of eve, whose bytes are gone."""
    made = Foreign(lab, accounts["eve"], "of-eve", port, tmp_path)
    for dataset in accounts["eve"].client.datasets.list(project_id="of-eve"):
        accounts["eve"].client.datasets.update(dataset.unique_id, public=True)
    for mfid in (made.drawn, made.counted):
        for file in accounts["eve"].client.files.list(mfid):
            if file.filename in ("said.json", "count.txt"):
                digest = str(file.sha256_hash)
                (tmp_path / "service" / "contents" / digest[:2] / digest[2:]).unlink()
    return made


@pytest.fixture
def as_ada(accounts: dict[str, Session], command: Any) -> Callable[..., Any]:
    """Run the installed command as ada."""
    ada = accounts["ada"].settings
    where = ("--data", ada.data, "--url", ada.api_url, "--api-key", ada.api_key)
    return lambda *arguments: command(*arguments, *where)


def test_reading_lost_bytes_of_others_runs_nothing(
    foreign: Foreign, accounts: dict[str, Session], as_ada: Callable[..., Any], tmp_path: Path
) -> None:
    for mfid, name in ((foreign.drawn, "said.json"), (foreign.counted, "count.txt")):
        got = as_ada("get", mfid, "-o", tmp_path / "got")
        assert got.returncode == 1
        assert f"crucible-lineage reproduce {mfid}" in got.stdout + got.stderr
        with Catalogue(accounts["ada"], "of-eve") as catalogue, pytest.raises(LineageError, match=f"reproduce {mfid}"):
            catalogue.dataset(mfid).path(name)
        for reading in (
            ("show", mfid),
            ("lineage", mfid, "-o", tmp_path / f"{mfid}.html"),
            ("verify", mfid, "--bytes"),
        ):
            as_ada(*reading)
    assert not foreign.marker.exists()


def test_code_of_others_runs_by_consent_only(
    foreign: Foreign, accounts: dict[str, Session], as_ada: Callable[..., Any]
) -> None:
    eve = str(accounts["eve"].agent["unique_id"])
    for mfid, runs in ((foreign.drawn, ":drawn"), (foreign.counted, "run: sh count.sh")):
        refused = as_ada("reproduce", mfid, "--here")
        assert refused.returncode == 2, refused.stderr
        for text in (runs, "eve", eve, "--show-code", f"--run-code-of {eve}", "nothing was changed"):
            assert text in refused.stderr, refused.stderr
        restored = as_ada("reproduce", mfid, "--restore", "--here")
        assert (restored.returncode, f"--run-code-of {eve}" in restored.stderr) == (2, True), restored.stderr
        shown = as_ada("reproduce", mfid, "--show-code")
        assert (shown.returncode, 'touch "$1"' in shown.stdout or ".touch()" in shown.stdout) == (0, True), shown
    rerun = as_ada("rerun", foreign.counted, "--force")
    assert (rerun.returncode, "project trust NAME --code" in rerun.stderr) == (2, True), rerun.stderr
    assert "--run-code-of" not in rerun.stderr, rerun.stderr  # which `rerun` lacks
    assert not foreign.marker.exists()
    allowed = as_ada("reproduce", foreign.counted, "--here", "--run-code-of", eve)
    assert "identical" in allowed.stdout, allowed.stdout + allowed.stderr


@by_night("two interpreters start")
def test_it_is_asked_once_in_a_terminal(foreign: Foreign, accounts: dict[str, Session]) -> None:
    ada = accounts["ada"].settings
    command = [sys.executable, "-m", "crucible_lineage", "reproduce", foreign.counted, foreign.drawn, "--here"]
    command += ["--data", str(ada.data), "--url", str(ada.api_url), "--api-key", str(ada.api_key)]
    for answer, code, said in ((b"n\n", 2, "was not run"), (b"y\n", 1, "identical")):
        near, far = pty.openpty()
        os.write(near, answer)
        done = subprocess.run(command, stdin=far, stdout=subprocess.PIPE, stderr=far, check=False)
        os.close(far)
        asked = os.read(near, 1 << 16).decode()
        os.close(near)
        assert (done.returncode, asked.count("[y/N]")) == (code, 1), asked
        assert said in asked + done.stdout.decode()  # what it drew names its home


def test_members_of_named_projects_are_trusted_on_this_machine(
    foreign: Foreign, accounts: dict[str, Session], as_ada: Callable[..., Any]
) -> None:
    accounts["eve"].client.projects.add_member("of-eve", "ada", "viewer")
    assert as_ada("reproduce", foreign.counted, "--here").returncode == 2
    assert as_ada("reproduce", foreign.counted, "--here", "--run-code-of", "eve").returncode == 0
    named = as_ada("project", "trust", "of-eve", "--code")
    assert named.returncode == 0, named.stderr
    assert as_ada("reproduce", foreign.counted, "--here").returncode == 0
    assert as_ada("project", "trust", "eve", "--project", "of-eve", "--code").returncode == 0
    lines = (accounts["ada"].settings.data / "code-that-runs-here.txt").read_text().splitlines()
    names = ("of-eve", accounts["eve"].agent["unique_id"])
    assert lines == [f"{name}\t{accounts['ada'].settings.api_url}" for name in names]


def test_a_result_that_was_handed_over_is_still_of_its_author(
    foreign: Foreign, accounts: dict[str, Session], as_ada: Callable[..., Any], tmp_path: Path
) -> None:
    ada = str(accounts["ada"].agent["unique_id"])
    with closing(sqlite3.connect(tmp_path / "service" / "crucible.db")) as database, database:
        seal_rows(database)
        database.execute(
            "UPDATE resource SET owner_id = (SELECT id FROM user WHERE username = 'ada') WHERE mfid = ?",
            (foreign.counted,),
        )
    assert accounts["ada"].client.datasets.get(foreign.counted).owner_orcid == ada
    assert as_ada("show", foreign.counted).returncode == 0
    refused = as_ada("reproduce", foreign.counted, "--here")
    assert (refused.returncode, foreign.marker.exists()) == (2, False), refused.stdout


def test_steps_have_an_empty_home_no_network_and_limits(
    session: Session, lab: Any, port: int, command: Any, tmp_path: Path
) -> None:
    own = Foreign(lab, session, "lab", port, tmp_path)
    secrets = {"CRUCIBLE_API_KEY": "sesame", "LAB_TOKEN": "sesame", "OMP_NUM_THREADS": "1"}

    def said(*options: str) -> Any:
        keep = tmp_path / f"kept{len(options)}"
        ran = command("reproduce", own.drawn, "--here", "--keep", keep, *options,
                      "--data", session.settings.data, **secrets)  # fmt: skip
        (made, *_) = sorted(keep.rglob("said.json"))
        return json.loads(made.read_text()), ran

    alone, ran = said()
    assert (alone["home"], alone["is_mine"]) == ([], True)
    assert "sesame" not in json.dumps(alone)
    assert all(0 < limit < 1 << 60 for limit in alone["limits"]), alone["limits"]
    assert alone["connected"] is (network_cut() == ())
    assert ("steps run with its network" in ran.stderr) is (network_cut() == ())
    assert said("--network")[0]["connected"] is True


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import time; time.sleep(60)", "it was ended after"),
        ("import time\nfor n in '123456': open(n, 'wb').write(bytes(1 << 20))\ntime.sleep(60)", "ended: it wrote"),
        ("import os, time\nif os.fork(): time.sleep(60)\nos.setsid(); time.sleep(3); open('late', 'w')", "was ended"),
    ],
)  # fmt: skip
def test_what_exceeds_a_limit_is_ended(tmp_path: Path, code: str, message: str) -> None:
    request = tmp_path / "request.json"
    command = [sys.executable, "-c", code]
    with pytest.raises(RemakeError, match=message):
        run_confined(command, request, tmp_path, {}, Limits(1.5, 4 << 20, network=False))
    assert not (tmp_path / "late").exists()


def forged(path: Path, change: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        change(archive)
    return path


def _large(archive: zipfile.ZipFile) -> None:
    archive.writestr(MANIFEST, "")
    archive.filelist[0].file_size = 1 << 40


def _link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("data")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    archive.writestr(entry, "/etc")


@pytest.mark.parametrize("change", [lambda archive: archive.writestr("../outside", "x"), _large, _link])
def test_an_archive_is_unpacked_within_bounds(change: Any, data: Path, command: Any, tmp_path: Path) -> None:
    bundle = forged(tmp_path / "bad.zip", change)
    ran = command("reproduce", bundle, "--data", data)
    assert (ran.returncode, "bad.zip holds" in ran.stderr) == (2, True), ran.stderr
    assert not list(tmp_path.rglob("outside"))


@pytest.fixture
def bundle(session: Session, lab: Any, port: int, tmp_path: Path) -> tuple[Path, Foreign]:
    """Provide an unpacked bundle of a command's result."""
    made = Foreign(lab, session, "lab", port, tmp_path)
    write_bundle(session, made.counted, tmp_path / "it.zip")
    with zipfile.ZipFile(tmp_path / "it.zip") as archive:
        archive.extractall(tmp_path / "bundle")
    return tmp_path / "bundle", made


LIAR = """
import json, pathlib, sys
pathlib.Path({lied!r}).touch()
request = json.loads(pathlib.Path(sys.argv[1]).read_text())
said = [{{"name": pair["name"], "verdict": "picture alike", "said": "", "largest": 0.0}} for pair in request["pairs"]]
pathlib.Path(request["answer"]).write_text(json.dumps(said))
"""


def replaced(folder: Path, old: str, new: str) -> None:
    """Replace a text in every document of the bundle, and write its manifest again."""
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace(old, new))
    names = [line.split("  ")[1] for line in (folder / MANIFEST).read_text().splitlines()]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / MANIFEST).write_text("".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items()))


@pytest.mark.parametrize("is_consistent", [False, True])
def test_a_forged_bundle_is_neither_run_nor_believed(
    bundle: tuple[Path, Foreign], is_consistent: bool, command: Any, tmp_path: Path
) -> None:
    """With output, hash and comparer changed; then with the record, too, so that only making it again tells."""
    folder, made = bundle
    data, lied = tmp_path / "elsewhere", tmp_path / "lied"
    (output,) = folder.glob(f"data/{made.counted}/count.txt")
    before = hashlib.sha256(output.read_bytes()).hexdigest()
    output.write_text("4711\n")
    (folder / "remake" / "compare.py").write_text(LIAR.format(lied=str(lied)))
    after = hashlib.sha256(output.read_bytes()).hexdigest()
    if is_consistent:
        path = folder / "records" / f"{made.counted}.json"
        document = json.loads(path.read_text().replace(before, after))
        record = document["scientific_metadata"]["crucible_lineage"]
        record["result"]["generated_sha256"] = generated_sha256(record["generated"])
        path.write_text(json.dumps(document))
        replaced(folder, before, after)
    else:
        plan = folder / "remake" / "plan.json"
        plan.write_text(plan.read_text().replace(before, after))
    refused = command("reproduce", folder, "--here", "--data", data)
    assert refused.returncode == 2, refused.stdout
    assert not made.marker.exists()
    if not is_consistent:
        assert "does not lead to its ids" in refused.stderr, refused.stderr
        return
    maker = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert f"--run-code-of {maker}" in refused.stderr, refused.stderr
    ran = command("reproduce", folder, "--here", "--json", "--data", data, "--run-code-of", maker)
    (found,) = json.loads(ran.stdout)["results"]
    assert (ran.returncode, found["verdict"]) == (1, "differs"), found
    assert maker in found["compared_with"]
    assert not lied.exists()


def test_the_program_in_a_bundle_says_first_that_it_runs_foreign_code(bundle: tuple[Path, Foreign]) -> None:
    folder, _ = bundle
    program = folder / "reproduce.py"
    assert program.read_text().startswith('"""Run foreign code')
    ran = subprocess.run([sys.executable, "-I", program, "--here"], capture_output=True, text=True, check=False)
    assert ran.stderr.startswith("This runs foreign code"), ran.stderr
    assert (ran.returncode, "identical" in ran.stdout) == (0, True), ran.stdout + ran.stderr
