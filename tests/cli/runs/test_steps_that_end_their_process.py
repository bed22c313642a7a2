"""A step that ends its process in any way has failed; the others continue, and the command reports everything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")

# How a step ends itself -> the message about it.
ENDINGS = {
    "exit": ("sys.exit(0)", "failed: it called sys.exit(0); a step ends by returning, at"),
    "text": ("sys.exit('no lamp')", "failed: it called sys.exit('no lamp'); a step ends by returning, at"),
    "interrupt": ("raise KeyboardInterrupt", "failed: KeyboardInterrupt, at"),
    "leave": ("os._exit(0)", "its process ended with exit code 0; it"),
    "kill": ("os.kill(os.getpid(), 9)", "its process was ended by signal 9; the system may have run out of memory"),
    "fault": ("ctypes.string_at(0)", "its process was ended by signal 11"),
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
    """Declare a step for each ending, one after each of them, and two good ones."""
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
def test_it_has_failed_and_the_others_continue(
    lab: Any, data: Path, command: Any, engine: str, request: pytest.FixtureRequest
) -> None:
    environment = request.getfixturevalue("prefect_server").environment if engine == "prefect" else {}
    ran = command("run", declared(lab), "--data", data, "--engine", engine, "--json", **environment)
    assert (ran.returncode, bool(ran.stdout)) == (1, True), ran.stderr
    result = json.loads(ran.stdout)
    assert result["executed"] == ["good", "better"]
    for name, (_, words) in ENDINGS.items():
        assert result["outcomes"][name] == "failed"
        assert result["outcomes"][f"after-{name}"] == "skipped"
        assert words in result["errors"][name]["message"], result["errors"][name]
        assert f"{name}, which it needs, has no result" in result["errors"][f"after-{name}"]["message"]
    listed = json.loads(command("status", "--data", data, "--json").stdout)["runs"][0]
    assert listed["state"] == "failed"


IN_OUR_PROCESS = ["sys.exit(0)", "os._exit(0)", "raise KeyboardInterrupt"]


@pytest.mark.parametrize("ending", IN_OUR_PROCESS)
def test_a_module_that_ends_the_process_on_import_is_a_fault(lab: Any, data: Path, command: Any, ending: str) -> None:
    lab.file(f"{lab.module}_ends.py", f"import os, sys\n{ending}\n")
    text = f"{HEAD}  ends: {{uses: '{lab.module}_ends:f', inputs: {{counts: first}}, matrix: {{factor: [1, 2]}}}}\n"
    path = lab.declare(f"{text}  after: {{uses: 'LABMODULE:scale', inputs: {{counts: ends.other}}}}\n")
    words = f"module '{lab.module}_ends' cannot be imported: it ends its process when it is imported ({ending})"

    checked = command("check", path)
    assert checked.returncode == 2
    assert words in checked.stderr
    assert f"{path}:" in checked.stderr

    repaired = "@step(outputs=('out', 'other'))\ndef f(counts, *, factor, out, other): ...\n"
    lab.file(f"{lab.module}_ends.py", f"from crucible_lineage import step\n\n\n{repaired}")
    assert command("plan", path, "--data", data).returncode == 0, "the fault is not remembered"


@pytest.mark.parametrize("ending", IN_OUR_PROCESS)
def test_a_header_function_that_ends_the_process_blocks_steps_of_the_file(
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
    result = json.loads(ran.stdout)
    assert result["executed"] == ["good", "better"]
    assert (
        f"cannot read second.txt: it ends its process ({ending}); let it return" in result["errors"]["ends"]["message"]
    )


@pytest.mark.parametrize("ending", IN_OUR_PROCESS)
def test_a_module_imported_by_a_function_that_ends_the_process_fails_that_step(
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
