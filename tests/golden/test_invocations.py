"""What hundreds of invocations print on one small data folder, and how they end."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from crucible_lineage.cli import main
from tests.golden.stored import HERE, compare, normal, with_numbers
from tests.warm import WarmPython

INVOCATIONS = [
    (name, arguments.strip())
    for line in (HERE / "invocations.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for name, _, arguments in [line.partition(" ")]
]
pytestmark = pytest.mark.timeout(900)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
PER_FOLDER = {"CRUCIBLE_LINEAGE_DATA": "store", "CRUCIBLE_LINEAGE_KEEP": "no", "COLUMNS": "120"}


class Folder:
    """A folder of `init` in which commands run one after the other."""

    def __init__(self, path: Path, python: WarmPython) -> None:
        self.path, self.python = path, python
        self.run("init", str(path), cwd=path.parent)
        for number, day in enumerate(DAYS):  # one by one, so that their ids are in this order
            file = path / "data" / f"{day}.csv"
            file.write_text("".join(f"{number + count}\n" for count in (10, 11, 12, 14)))
            self.run("register", str(file), "--project", "lab", "--measurement", "counting")
        declared = (path / "pipeline.yaml").read_text()
        (path / "unknown-key.yaml").write_text(
            declared.replace("params:", "parms:").replace("mysteps:mean", "mysteps:men")
        )
        (path / "cycle.yaml").write_text(declared.replace("{series: series}", "{series: table}"))
        (path / "failing.yaml").write_text(
            declared.replace("skip: 1", "skip: 4").replace("pipeline: lab", "pipeline: short")
        )
        (path / "copy.yaml").write_text(declared)
        for name in ("rich.yaml", "shape.yaml", "faults.yaml", "more.py"):
            shutil.copy(HERE / name, path)
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path / "both.pem"))
        for name in ("notes.txt", "notes2.txt"):
            (path / name).write_text(f"{name}: the lamp was new\n")

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Return what a command prints, and its exit code; `write FILE TEXT` writes a file."""
        if arguments[0] == "write":
            (self.path / arguments[1]).parent.mkdir(exist_ok=True)
            return str((self.path / arguments[1]).write_text(arguments[2].replace("\\n", "\n") + "\n"))
        words = ["-m", "crucible_lineage", *arguments]
        ran = self.python.run(words, {**os.environ, **PER_FOLDER}, cwd=cwd or self.path)
        return f"exit code {ran.returncode}\n--- stdout\n{ran.stdout}--- stderr\n{ran.stderr}"

    def asked(self, *arguments: str) -> dict[str, list[dict[str, str]]]:
        """Return what a command answers in this process, which is not what the tests compare."""
        ran = CliRunner().invoke(main, [*arguments, "--json", "--data", str(self.path / "store")])
        answer: dict[str, list[dict[str, str]]] = json.loads(ran.stdout or "{}")
        return answer

    def ids(self) -> dict[str, str]:
        """Return the ids of datasets and runs that exist by now, by their names in `invocations.txt`."""
        names = {
            f"sha {day}": hashlib.sha256((self.path / "data" / f"{day}.csv").read_bytes()).hexdigest() for day in DAYS
        }
        datasets = self.asked("list", "--all", "--project", "lab").get("datasets", [])
        for found in datasets:
            name = found["dataset_name"].removesuffix(".csv").replace("mean of ", "mean ").removesuffix(".csv")
            name = "table" if name == "means of all series" else name
            old = "old " if found["state"] == "superseded" else ""
            names.setdefault(old + name, found["mfid"])
        runs = self.asked("runs").get("runs", [])
        return names | {f"run{number}": run["run_id"] for number, run in enumerate(reversed(runs), 1)}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> dict[str, str]:
    """What each invocation printed, one after the other."""
    folder = Folder(tmp_path_factory.mktemp("golden") / "lab", warm_python)
    printed, ids = {}, folder.ids()
    for name, arguments in INVOCATIONS:
        words = shlex.split(arguments.format_map(ids))
        text = folder.run(*words)
        if words[0] in ("run", "register"):
            ids = {day: ids[day] for day in DAYS} | folder.ids()  # those that are to be deleted are not listed
        names = {value: key for key, value in ids.items()}
        printed[name] = normal(text, with_numbers(names, text), folder.path)
    return printed


@pytest.mark.parametrize("name", [name for name, _ in INVOCATIONS])
def test_an_invocation_prints_what_it_printed(name: str, outputs: dict[str, str]) -> None:
    compare(f"outputs/{name}.txt", outputs[name])


def test_no_output_is_stored_without_its_invocation() -> None:
    assert {path.stem for path in (HERE / "outputs").iterdir()} == {name for name, _ in INVOCATIONS}
