"""The output of commands with --json matches docs/commands.schema.json, even when they fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from crucible_lineage.cli import COMMANDS, main

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text(encoding="utf-8"))
NO_JSON = {"answer", "mcp", "project", "data", "watch"}
Ask = Callable[..., Any]


def validate(value: Any, name: str) -> None:
    Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name}"}).validate(value)


@pytest.fixture
def ask(data: Path) -> Ask:
    """Run a command; return the object that it prints, which is all its output, and its exit code."""

    def run(*arguments: object) -> Any:
        ran = CliRunner().invoke(main, [*map(str, arguments), "--data", str(data), "--json"])
        return json.loads(ran.stdout), ran.exit_code

    return run


def test_the_schema_follows_from_the_types_of_the_answers() -> None:
    from docs.commands_schema import TARGET, schema_text

    assert TARGET.read_text(encoding="utf-8") == schema_text(), "make schema"


def test_every_command_with_json_is_in_the_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for name in COMMANDS:
        command = main.get_command(None, name)  # type: ignore[arg-type]
        has_json = any("--json" in parameter.opts for parameter in command.params)
        assert has_json == (name not in NO_JSON), name
        assert not has_json or name in SCHEMA["$defs"], name


def test_output_of_commands_matches_the_schema(lab: Any, ask: Ask, data: Path) -> None:
    validate(ask("plan", lab.pipeline)[0], "plan")
    ran, code = ask("run", lab.pipeline, "--engine", "local")
    validate(ran, "run")
    scaled, total = ran["datasets"]["scaled"]["out"], ran["datasets"]["total"]["out"]
    assert code == 0
    commands = [
        ("check", lab.pipeline), ("verify", total), ("why", total), ("why", "total", lab.pipeline),
        ("show", total, "--log"),
        ("diff", scaled, total), ("impact", scaled), ("status",), ("status", "--all"), ("rerun", total),
        ("list", "--project", "lab", "--all"), ("show", total), ("get", total, "-o", lab.folder / "fetched"),
        ("get", "--step", "total", "-o", lab.folder / "each"), ("table", "--step", "total"), ("runs",),
        ("register", lab.folder / "first.txt", "--project", "lab", "--parent", total),
        ("data", "clean", "--yes"), ("push",),
    ]  # fmt: skip
    for arguments in commands:
        validate(ask(*arguments)[0], "data clean" if arguments[0] == "data" else arguments[0])


def test_output_of_a_failed_step_matches_the_schema(lab: Any, ask: Ask) -> None:
    text = lab.pipeline.read_text().replace(f"{lab.module}:scale", f"{lab.module}:fail")
    ran, code = ask("run", lab.declare(text.replace("    params: {factor: 3}\n", "")), "--engine", "local")
    validate(ran, "run")
    assert code == 1
    assert "the lamp was off" in ran["errors"]["scaled"]["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("run", "BROKEN"), 2, "InputError"),
        (("check", "BROKEN"), 2, None),
        (("verify", "0tr5k2ndm5zvd000nr21qakeh4"), 2, "InputError"),
        (("plan", "BROKEN", "--no-such-option"), 2, "NoSuchOption"),
        (("get", "0tr5k2ndm5zvd000nr21qakeh4", "-o", "there"), 2, "InputError"),
        (("why", "nothing", "GOOD"), 2, "InputError"),
        (("run", "GOOD", "--url", "http://127.0.0.1:9/api/v3", "--api-key", "key"), 3, "UnreachableError"),
    ],
)
def test_errors_are_objects_with_the_same_exit_code(
    lab: Any, data: Path, arguments: tuple[str, ...], code: int, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRIES", "1")
    good = shutil.copy(lab.pipeline, lab.folder / "good.yaml")
    broken = lab.declare(lab.pipeline.read_text().replace("factor: 3", "facto: 3"))
    words = [{"BROKEN": str(broken), "GOOD": str(good)}.get(word, word) for word in arguments]
    environment = {"CRUCIBLE_LINEAGE_DATA": str(data)}
    plain = CliRunner(env=environment).invoke(main, words)
    ran = CliRunner(env=environment).invoke(main, [*words, "--json"])
    assert (plain.exit_code, ran.exit_code) == (code, code), ran.output
    printed = json.loads(ran.stdout)
    if kind is None:
        validate(printed, "check")
        return
    validate(printed, "failed")
    assert printed["error"]["kind"] == kind
    assert printed["error"]["exit_code"] == code
    if "BROKEN" in arguments and kind == "InputError":
        assert (printed["error"]["faults"][0]["line"], printed["error"]["faults"][0]["column"]) == (11, 14)


def test_other_output_is_not_on_stdout(lab: Any, data: Path, command: Any) -> None:
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
