"""docs/tutorial.md works: each file is written, each command is run, and prints what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.serving import start_server
from tests.warm import WarmPython

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
INSTALLING = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
INSTALLS = ("python3 -m venv ", ". env/", "pip install ")
BLOCK = re.compile(r"```(python|yaml|console)\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the page is for a POSIX shell")


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a block with the lines that the page shows as its output."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, *printed = part.splitlines()
        yield line, printed


def test_each_command_prints_what_the_page_shows(tmp_path: Path, warm_python: WarmPython) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with start_server(tmp_path / "service") as service:
        with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
            lead = session.client.account.whoami().user_unique_id
            session.client.projects.create(project_id="dye", organization="x", project_lead=lead)
        (folder / "KEYFILE").write_text(service.api_key)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment["CRUCIBLE_LINEAGE_DATA"] = str(tmp_path / "data")
        ran = []
        for language, block in BLOCK.findall(PAGE):
            if language != "console":
                name = block.partition("\n")[0].removeprefix("# ")
                (folder / name).write_text(block, encoding="utf-8")
                continue
            for line, printed in commands(block):
                if line.startswith(INSTALLS):  # the tests run in such an environment already
                    continue
                output = follow(line.replace("--to URL", f"--to {service.url}"), folder, environment, warm_python)
                for expected in printed:
                    pattern = ".*".join(map(re.escape, expected.split("…")))
                    assert re.search(rf"^{pattern}", output, re.MULTILINE), (line, expected, output)
                ran.append(line.removeprefix("crucible-lineage ").split()[0])
        with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
            assert session.client.datasets.count(project_id="dye") == 16
    assert set(ran) >= {"check", "plan", "run", "list", "show", "get", "table", "lineage", "why", "push"}
    assert (folder / "first" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "peaks.csv").read_text().splitlines()) == 4


def follow(line: str, folder: Path, environment: dict[str, str], python: WarmPython) -> str:
    """Run a line, which must succeed; return its output."""
    program, *words = shlex.split(line)
    if program == "crucible-lineage":
        ran = python.run(["-m", "crucible_lineage", *words], environment, folder)
    else:
        ran = subprocess.run(
            [program, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            encoding="utf-8",
        )
    assert ran.returncode == 0, (line, ran.stdout, ran.stderr)
    return ran.stdout


def test_extras_named_on_the_pages_match_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for_developers = {"test", "lint"}
    named = {extra for extras in re.findall(r"crucible-lineage\[([\w,]+)\]", PAGE) for extra in extras.split(",")}
    assert named <= set(declared)
    listed = set(re.findall(r"^\| `(\w+)` \|", INSTALLING, re.MULTILINE))
    assert listed == set(declared) - for_developers


def test_the_three_ways_to_write_steps_work(tmp_path: Path, warm_python: WarmPython) -> None:
    page = (ROOT / "docs" / "ways.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    (tmp_path / "ways.py").write_text(program, encoding="utf-8")
    (tmp_path / "scan.txt").write_text("1\n2\n3\n4\n")
    printed = follow(
        f"{sys.executable} -c 'from pathlib import Path; import ways; "
        'print(ways.smooth(Path("scan.txt"), out=Path("."))); print(ways.process.name, ways.average.name)\'',
        tmp_path,
        dict(os.environ),
        warm_python,
    )
    assert printed == "{'points': 2}\nprocess average\n"
    assert (tmp_path / "smooth.txt").read_text() == "2.0\n3.0"
