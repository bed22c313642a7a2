"""docs/tutorial.md and docs/month.md work: files are written, commands run, and print what the pages show."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import start_server
from tests.warm import WarmPython

ROOT = Path(__file__).parents[2]
PAGE = "\n".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("tutorial", "month"))
INSTALLING = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
INSTALLS = ("python3 -m venv ", ". env/", "pip install ")
BLOCK = re.compile(r"```(python|yaml|console)\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the page is for a POSIX shell")


def commands(block: str, prompt: str = r"\$ ") -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a block with the lines that the page shows as its output."""
    for part in re.split(rf"^(?={prompt})", block, flags=re.MULTILINE)[1:]:
        line, *printed = part.splitlines()
        yield line.removeprefix("$ "), printed


def shows(line: str, printed: list[str], output: str) -> None:
    """Check that the output has each line that the page shows."""
    for expected in printed:
        pattern = ".*".join(map(re.escape, expected.split("…")))
        assert re.search(rf"^{pattern}", output, re.MULTILINE), (line, expected, output)


def test_each_command_prints_what_the_page_shows(tmp_path: Path, warm_python: WarmPython) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"CRUCIBLE_LINEAGE_DATA": str(tmp_path / "data"), "CRUCIBLE_LINEAGE_KEEP": "yes"}
    ran = []
    for language, block in BLOCK.findall(PAGE):
        if language != "console":
            name = block.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(block, encoding="utf-8")
            continue
        for line, printed in commands(block):
            if line.startswith(INSTALLS):  # the tests run in such an environment already
                continue
            line = line.replace("of SHA", f"of {maker(folder)}")
            shows(line, printed, follow(line, folder, environment, warm_python))
            ran.append(line.removeprefix("crucible-lineage ").split()[0])
    assert set(ran) >= {"check", "plan", "run", "list", "show", "get", "table", "lineage", "why"}
    assert set(ran) >= {"hold", "lift", "set", "sign", "certify", "statements", "reproduce"}
    assert (folder / "first" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "peaks.csv").read_text().splitlines()) == 4


def test_two_people_share_a_crucible(tmp_path: Path, warm_python: WarmPython) -> None:
    statements = (ROOT / "docs" / "statements.md").read_text(encoding="utf-8")
    story = statements.partition("## Two people, one Crucible\n")[2].partition("\n## ")[0]
    for language, block in BLOCK.findall(PAGE):
        if language != "console":
            (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    follow(f"{sys.executable} measure.py 0 1 2 4 8", tmp_path, dict(os.environ), warm_python)
    keys = {}
    with start_server(tmp_path / "lab" / "crucible") as lab:
        for language, block in BLOCK.findall(story):
            if language == "yaml":
                with (tmp_path / "pipeline.yaml").open("a", encoding="utf-8") as pipeline:
                    pipeline.write(block)
            for shown, printed in commands(block, r"\w+\$ ") if language == "console" else ():
                person, line = shown.split("$ ", 1)
                environment = {
                    **os.environ,
                    "CRUCIBLE_LINEAGE_DATA": str(tmp_path / person),
                    "CRUCIBLE_LINEAGE_KEEP": "yes",
                }
                if person in keys:
                    environment |= {"CRUCIBLE_API_URL": lab.url, "CRUCIBLE_API_KEY": keys[person]}
                if line.startswith("crucible-lineage serve"):
                    continue
                output = follow(line, tmp_path, environment, warm_python)
                shows(line, printed, output)
                keys |= {line.split()[3]: key for key in re.findall(r"^key: (\S+)$", output, re.MULTILINE)}
    assert set(keys) == {"mara", "jon"}


def maker(folder: Path) -> str:
    """Return how the maker of the handed over bundle is named."""
    if not (folder / "report.zip").exists():
        return ""
    with zipfile.ZipFile(folder / "report.zip") as bundle:
        return hashlib.sha256(bundle.read("manifest-sha256.txt")).hexdigest()


def follow(line: str, folder: Path, environment: dict[str, str], python: WarmPython) -> str:
    """Run a line, which must end with the exit code in its comment, or succeed; return its output."""
    program, *words = shlex.split(line, comments=True)
    expected = re.search(r"# exit code (\d)", line)
    if program == "crucible-lineage":
        ran = python.run(["-m", "crucible_lineage", *words], environment, folder)
    else:
        ran = subprocess.run(
            ["sh", "-c", line] if program == "cd" else [program, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            encoding="utf-8",
        )
    assert ran.returncode == int(expected[1] if expected else 0), (line, ran.stdout, ran.stderr)
    return ran.stdout + (ran.stderr if expected else "")


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
