"""A step that ends its process, however it does, has failed; the others go on, and the command tells it all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")

# How a step ends itself -> what is told of it.
ENDINGS = {
    "exit": ("sys.exit(0)", "failed: it called sys.exit(0); a step ends by returning, at"),
    "text": ("sys.exit('no lamp')", "failed: it called sys.exit('no lamp'); a step ends by returning, at"),
    "interrupt": ("raise KeyboardInterrupt", "failed: KeyboardInterrupt, at"),
    "leave": ("os._exit(0)", "died (exit code 0); its output is in"),
    "kill": ("os.kill(os.getpid(), 9)", "died (signal 9; the system may have run out of memory)"),
    "fault": ("ctypes.string_at(0)", "died (signal 11)"),
    "memory": ("bytearray(1 << 60)", "failed: MemoryError: there was not enough memory"),
    "generator": ("raise GeneratorExit", "failed: GeneratorExit, at"),
}
HEAD = """
pipeline: ending
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  good: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: 2}}
  better: {uses: "LABMODULE:scale", inputs: {counts: good}, params: {factor: 2}}
"""


def declared(lab: Any) -> Path:
    """A step for each ending, one after each of them, and two that are as they should be."""
    code = "import ctypes, os, sys\nfrom pathlib import Path\n\n\n"
    steps = HEAD
    for name, (ending, _) in ENDINGS.items():
        code += f"def {name}(counts: Path, *, out: Path):\n    (out / 'x').write_text('1')\n    print('last words')\n"
        code += f"    {ending}\n\n\n"
        steps += f"  {name}: {{uses: '{lab.module}_ends:{name}', inputs: {{counts: first}}}}\n"
        steps += f"  after-{name}: {{uses: 'LABMODULE:scale', inputs: {{counts: {name}}}, params: {{factor: 2}}}}\n"
    lab.file(f"{lab.module}_ends.py", code)
    path: Path = lab.declare(steps)
    return path


@pytest.mark.parametrize("engine", ["local", "prefect"])
def test_it_has_failed_and_the_others_go_on(
    lab: Any, data: Path, command: Any, engine: str, request: pytest.FixtureRequest
) -> None:
    environment = request.getfixturevalue("prefect_server").environment if engine == "prefect" else {}
    ran = command("run", declared(lab), "--data", data, "--engine", engine, "--json", **environment)
    assert (ran.returncode, bool(ran.stdout)) == (1, True), ran.stderr
    told = json.loads(ran.stdout)
    assert told["executed"] == ["good", "better"]
    for name, (_, words) in ENDINGS.items():
        assert told["outcomes"][name] == "failed"
        assert told["outcomes"][f"after-{name}"] == "skipped"
        assert words in told["errors"][name]["message"], told["errors"][name]
        assert f"{name}, which it needs, has no result" in told["errors"][f"after-{name}"]["message"]
    listed = json.loads(command("status", "--data", data, "--json").stdout)["runs"][0]
    assert listed["state"] == "failed"


IN_OUR_PROCESS = ["sys.exit(0)", "os._exit(0)", "raise KeyboardInterrupt"]


@pytest.mark.parametrize("ending", IN_OUR_PROCESS)
def test_a_module_that_ends_the_process_when_it_is_imported_fails_its_steps_and_no_other(
    lab: Any, data: Path, command: Any, ending: str
) -> None:
    lab.file(f"{lab.module}_ends.py", f"import os, sys\n{ending}\n")
    text = f"{HEAD}  ends: {{uses: '{lab.module}_ends:f', inputs: {{counts: first}}, matrix: {{factor: [1, 2]}}}}\n"
    path = lab.declare(f"{text}  after: {{uses: 'LABMODULE:scale', inputs: {{counts: ends.other}}}}\n")
    words = f"module '{lab.module}_ends' cannot be imported: it ends its process when it is imported ({ending})"

    ran = command("run", path, "--data", data, "--engine", "local", "--json")
    assert (ran.returncode, bool(ran.stdout)) == (1, True), ran.stderr
    told = json.loads(ran.stdout)
    assert told["executed"] == ["good", "better"]
    for name in ("ends[factor=1]", "ends[factor=2]"):
        assert words in told["errors"][name]["message"]
    assert "parent ends[factor=1] is blocked" in told["errors"]["after[factor=1]"]["message"]

    checked = command("check", path)
    assert (checked.returncode, checked.stderr.count(words)) == (2, 1)
    assert f"{path}:" in checked.stderr

    mended = "@step(outputs=('out', 'other'))\ndef f(counts, *, factor, out, other): ...\n"
    lab.file(f"{lab.module}_ends.py", f"from crucible_lineage import step\n\n\n{mended}")
    assert command("plan", path, "--data", data).returncode == 0, "nothing of what was wrong is remembered"


@pytest.mark.parametrize("ending", IN_OUR_PROCESS)
def test_a_function_for_headers_that_ends_the_process_blocks_what_needs_the_file(
    lab: Any, data: Path, command: Any, ending: str
) -> None:
    lab.file("second.txt", "2\n")
    lab.file(f"{lab.module}_ends.py", f"import os, sys\n\n\ndef header(path):\n    {ending}\n")
    read = f"  second: {{file: second.txt, timestamp: '2024-05-01T12:00:00Z', header: '{lab.module}_ends:header'}}\n"
    text = HEAD.replace("steps:\n", f"{read}steps:\n")
    path = lab.declare(
        f"{text}  ends: {{uses: 'LABMODULE:scale', inputs: {{counts: second}}, params: {{factor: 2}}}}\n"
    )
    ran = command("run", path, "--data", data, "--engine", "local", "--json")
    assert ran.returncode == 1, ran.stderr
    told = json.loads(ran.stdout)
    assert told["executed"] == ["good", "better"]
    assert f"cannot read second.txt: it ends its process ({ending}); let it return" in told["errors"]["ends"]["message"]


@pytest.mark.parametrize("ending", IN_OUR_PROCESS)
def test_a_module_that_a_function_imports_and_that_ends_the_process_is_the_failure_of_that_step(
    lab: Any, data: Path, command: Any, ending: str
) -> None:
    lab.file(f"{lab.module}_late.py", f"import os, sys\n{ending}\n")
    lab.file(
        f"{lab.module}_ends.py", f"def f(counts, *, out):\n    import {lab.module}_late\n    {lab.module}_late.g()\n"
    )
    path = lab.declare(f"{HEAD}  ends: {{uses: '{lab.module}_ends:f', inputs: {{counts: first}}}}\n")
    ran = command("run", path, "--data", data, "--engine", "local", "--json")
    assert ran.returncode == 1, ran.stderr
    assert json.loads(ran.stdout)["outcomes"] == {"good": "executed", "better": "executed", "ends": "failed"}


def test_what_code_prints_when_it_is_read_is_not_between_what_a_command_prints(
    lab: Any, data: Path, command: Any
) -> None:
    lab.file(f"{lab.module}_late.py", "print('late')\n\n\ndef g(): pass\n")
    code = "print('early')\n\n\ndef header(path):\n    print('header')\n    return {}\n\n\n"
    code += f"def f(counts: Path, *, out: Path):\n    import {lab.module}_late\n    {lab.module}_late.g()\n"
    lab.file(f"{lab.module}_ends.py", f"from pathlib import Path\n\n{code}")
    text = f"{HEAD}  ends: {{uses: '{lab.module}_ends:f', inputs: {{counts: first}}}}\n"
    path = lab.declare(text.replace("file: first.txt", f"file: first.txt, header: '{lab.module}_ends:header'"))
    for asked in ("check",), ("plan", "--data", data):
        ran = command(asked[0], path, *asked[1:], "--json")
        assert isinstance(json.loads(ran.stdout), dict)
        assert {"early", "late"} <= set(ran.stderr.split())
    assert "header" in ran.stderr


def test_ctrl_c_while_a_module_is_imported_is_one(lab: Any, command: Any) -> None:
    lab.file(f"{lab.module}_ends.py", "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    path = lab.declare(f"{HEAD}  ends: {{uses: '{lab.module}_ends:f', inputs: {{counts: first}}}}\n")
    assert command("check", path).returncode == 130
