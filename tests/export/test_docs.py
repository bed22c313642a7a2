"""The commands for exports in docs/exports.md work as written."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8").partition("\n## Reproduce\n")[0]
LINES = re.findall(r"^\$ crucible-lineage (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_the_command_writes_what_the_page_says(
    made: Any, invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [made.total if part == "MFID" else part for part in shlex.split(line.partition("  #")[0])]
    ran = invoke(*arguments, "--data", made.data)
    assert ran.exit_code == 0, ran.stderr
    if "-o" in arguments:
        assert (tmp_path / arguments[arguments.index("-o") + 1]).exists()


def test_the_page_has_a_command_for_every_format() -> None:
    from crucible_lineage.ask.lineage import RENDERERS

    named = set(re.findall(r"(?:-o it\.|--format )([\w-]+)", PAGE))
    assert named >= {*RENDERERS, "zip"}


def test_the_table_names_what_is_in_a_bundle(made: Any, invoke: Any, tmp_path: Path) -> None:
    assert invoke("lineage", made.total, "--data", made.data, "-o", tmp_path / "it.zip").exit_code == 0
    with zipfile.ZipFile(tmp_path / "it.zip") as archive:
        archive.extractall(tmp_path / "it")
    names = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)))
    for name in names:
        path = tmp_path / "it" / name.replace("MFID", made.total)
        assert path.exists(), name
