"""What commands print with --json has the shape that docs/commands.schema.json says, also when they fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from crucible_lineage.cli import COMMANDS, main

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text(encoding="utf-8"))
NO_JSON = {"mcp", "project", "calibration", "campaign", "lineage", "watch", "rename", "link", "unlink", "sample"}
Said = Callable[..., Any]


def validate(value: Any, name: str) -> None:
    Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name}"}).validate(value)


@pytest.fixture
def said(data: Path) -> Said:
    """The object that a command prints, which is all that is on stdout; and its exit code."""

    def ask(*arguments: object) -> Any:
        ran = CliRunner().invoke(main, [*map(str, arguments), "--data", str(data), "--json"])
        return json.loads(ran.stdout), ran.exit_code

    return ask


def test_every_command_that_speaks_json_is_in_the_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for name in COMMANDS:
        command = main.get_command(None, name)  # type: ignore[arg-type]
        speaks = any("--json" in parameter.opts for parameter in command.params)
        assert speaks == (name not in NO_JSON), name
        assert not speaks or name in SCHEMA["$defs"], name


PRINTING = """
import subprocess, sys
import click
from crucible_lineage.cli.printing import only_result, result_stream
with only_result():
    print("a library of this process")
    subprocess.run([sys.executable, "-c", "print('a library of a child process')"], check=True)
    click.echo('{"answer": 42}', file=result_stream())
"""


def test_what_libraries_and_child_processes_print_does_not_reach_stdout() -> None:
    ran = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == {"answer": 42}
    assert "a library of this process" in ran.stderr
    assert "a library of a child process" in ran.stderr


def test_what_commands_print_fits(lab: Any, said: Said, data: Path) -> None:
    validate(said("plan", lab.pipeline)[0], "plan")
    ran, code = said("run", lab.pipeline, "--engine", "local", "--record-run")
    validate(ran, "run")
    scaled, total = ran["datasets"]["scaled"]["out"], ran["datasets"]["total"]["out"]
    assert code == 0
    asked = [
        ("check", lab.pipeline, total), ("verify", total), ("why", total), ("why", "total", lab.pipeline),
        ("show", total, "--log"), ("show", "total", lab.pipeline, "--log"),
        ("diff", scaled, total), ("impact", scaled), ("status",), ("status", "--all"), ("rerun", total),
        ("list", "--project", "lab", "--all"), ("show", total), ("get", total, "-o", lab.folder / "fetched"),
        ("get", "--step", "total", "-o", lab.folder / "each"), ("table", "--step", "total"), ("runs",),
        ("register", lab.folder / "first.txt", "--project", "lab", "--parent", total), ("clean", "--yes"), ("push",),
    ]  # fmt: skip
    for arguments in asked:
        validate(said(*arguments)[0], arguments[0])


def test_what_is_doubtful_fits_and_has_one_state_everywhere(lab: Any, said: Said, data: Path) -> None:
    ran, _ = said("run", lab.pipeline, "--engine", "local")
    total = ran["datasets"]["total"]["out"]
    validate(said("hold", ran["inputs"]["first"][0], "--why", "odd")[0], "hold")
    listed, _ = said("list", "--project", "lab", "--all")
    validate(listed, "list")
    states = {one["mfid"]: one["state"] for one in listed["datasets"]}
    assert states[total] == "doubtful"
    for arguments in (("show", total), ("why", total), ("get", total, "-o", lab.folder / "fetched")):
        told, _ = said(*arguments)
        validate(told, arguments[0])
        assert told["state"] == "doubtful"
    for more in (("table", "--step", "total", "--all"), ("plan", lab.pipeline), ("status", "--all"), ("impact", total)):
        validate(said(*more)[0], more[0])
    words = ["lineage", "--project", "lab", "--format", "json", "--data", str(data)]
    drawn = json.loads(CliRunner().invoke(main, words).stdout)
    assert {node["id"]: node["state"] for node in drawn["nodes"]} == states


def test_a_failed_step_fits(lab: Any, said: Said) -> None:
    text = lab.pipeline.read_text().replace(f"{lab.module}:scale", f"{lab.module}:fail")
    ran, code = said("run", lab.declare(text.replace("    params: {factor: 3}\n", "")), "--engine", "local")
    validate(ran, "run")
    assert code == 1
    assert "the lamp was off" in ran["errors"]["scaled"]["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("run", "BROKEN"), 2, "InputError"),
        (("check", "BROKEN"), 2, None),
        (("verify", "0tr5k2ndm5zvd000nr21qakeh4"), 2, "InputError"),
        (("impact",), 2, "InputError"),
        (("show", "total", "GOOD"), 2, "InputError"),
        (("run",), 2, "MissingParameter"),
        (("plan", "BROKEN", "--no-such-option"), 2, "NoSuchOption"),
        (("lineages",), 2, "UsageError"),
        (("show", "--log", "0tr5k2ndm5zvd000nr21qakeh4"), 2, "InputError"),
        (("rerun", "0tr5k2ndm5zvd000nr21qakeh4"), 2, "InputError"),
        (("show", "0tr5k2ndm5zvd000nr21qakeh4"), 2, "InputError"),
        (("get", "0tr5k2ndm5zvd000nr21qakeh4", "-o", "there"), 2, "InputError"),
        (("diff", "0tr5k2ndm5zvd000nr21qakeh4", "0tr5k2ndm5zvd000nr21qakeh4"), 2, "InputError"),
        (("bundle", "0tr5k2ndm5zvd000nr21qakeh4", "-o", "there.zip"), 2, "InputError"),
        (("why", "nothing", "GOOD"), 2, "InputError"),
        (("list", "--project", "nowhere"), 2, "InputError"),
        (("register", "nothing.txt", "--project", "lab"), 2, "InputError"),
        (("status", "--unpark", "0tr5k2ndm5zvd000nr21qakeh4"), 2, "InputError"),
        (("run", "GOOD", "--url", "http://127.0.0.1:9/api/v3", "--api-key", "key"), 3, "UnreachableError"),
    ],
)
def test_errors_are_objects_with_the_same_exit_code(
    lab: Any, data: Path, arguments: tuple[str, ...], code: int, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRIES", "1")
    good = shutil.copy(lab.pipeline, lab.folder / "good.yaml")
    broken = lab.declare(lab.pipeline.read_text().replace("factor: 3", "facto: 3"))
    given = [{"BROKEN": str(broken), "GOOD": str(good)}.get(word, word) for word in arguments]
    environment = {"CRUCIBLE_LINEAGE_DATA": str(data)}
    plain = CliRunner(env=environment).invoke(main, given)
    ran = CliRunner(env=environment).invoke(main, [*given, "--json"])
    assert (plain.exit_code, ran.exit_code) == (code, code), ran.output
    told = json.loads(ran.stdout)
    if kind is None:
        validate(told, "check")
        return
    validate(told, "failed")
    assert told["error"]["kind"] == kind
    assert told["error"]["exit_code"] == code
    if "BROKEN" in arguments and kind == "InputError":
        assert (told["error"]["faults"][0]["line"], told["error"]["faults"][0]["column"]) == (11, 14)


def test_clean_asks_nobody_where_a_program_reads(lab: Any, said: Said, data: Path) -> None:
    (data / "work" / "left").mkdir(parents=True)
    told, code = said("clean")
    validate(told, "failed")
    assert (code, told["error"]["kind"]) == (2, "InputError")
    assert (data / "work" / "left").is_dir()


def test_nothing_that_others_print_is_on_stdout(lab: Any, data: Path, command: Any) -> None:
    module = lab.folder / f"{lab.module}.py"
    noise = (
        "import os, subprocess, sys\nprint('printed')\nos.write(1, b'written by a C library\\n')\n"
        "subprocess.run([sys.executable, '-c', \"print('printed by a child')\"])\n"
    )
    module.write_text(noise + module.read_text())
    for words in (("check",), ("plan",), ("run", "--engine", "local"), ("run",), ("plan",)):
        ran = command(words[0], lab.pipeline, *words[1:], "--data", data, "--json")
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("{"), ran.stdout[:200]
        json.loads(ran.stdout)
    ran = command("plan", lab.folder / "absent.yaml", "--data", data, "--json")
    assert json.loads(ran.stdout)["error"]["exit_code"] == ran.returncode == 2
