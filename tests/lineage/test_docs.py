"""The commands in docs/lineage.md run and print the documented output."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "lineage.md").read_text(encoding="utf-8")


def shown():
    """Return each command of the page with its documented output."""
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for part in re.split(r"^\$ crucible-lineage ", block, flags=re.MULTILINE)[1:]:
            command, *printed = part.splitlines()
            yield shlex.split(command), printed


def test_its_commands_print_what_it_says(demo_origin, demo_data, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = names(json.loads(demo_origin[1]), demo_data)
    commands = list(shown())
    assert [command[0] for command, _ in commands[:2]] == ["demo", "run"]
    assert {command[0] for command, _ in commands} == {*("demo", "run", "lineage", "diff", "impact", "verify")}
    for command, printed in commands[1:]:
        words = [known.get(word, str(tmp_path / word) if word.endswith(".svg") else word) for word in command]
        extra = ["--engine", "local", "--json"] if command[0] == "run" else []
        ran = CliRunner().invoke(main, [*words, *extra, "--data", str(demo_data)])
        assert ran.exit_code == 0, (command, ran.output)
        if command[0] == "run":
            known["OTHER"] = json.loads(ran.stdout)["datasets"]["bands"]["out"]
        for line in printed:
            pattern = ".*".join(map(re.escape, line.split("…")))
            assert re.search(f"^{pattern}$", ran.stdout, re.MULTILINE), (command, line, ran.stdout)
    assert (tmp_path / "neon.svg").read_text(encoding="utf-8").startswith("<svg")


def names(printed, data):
    """Return the values of the placeholders on the page."""
    made = printed["datasets"]
    with Session(Settings(data)) as session:
        (neon,) = session.client.files.list(made["neon"])
        record = session.client.metadata.get(made["calibrated"])["crucible_lineage"]
    fingerprint = record["activity"]["code"]["fingerprint"]
    return {"NEON": made["neon"], "BANDS": made["bands"], "HASH": neon.sha256_hash, "FINGERPRINT": fingerprint[:12]}
