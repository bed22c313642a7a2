"""All faults of a wrong declaration are reported at once, each with its location, before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.bind import bind_file


def test_the_steps_of_a_valid_pipeline_are_bound_in_an_order_of_execution(lab: Any) -> None:
    lab.declare(lab.pipeline.read_text().replace("  total:", "  sum_up:"))
    bound = bind_file(lab.pipeline)
    assert list(bound.steps) == ["scaled", "sum_up"]
    assert bound.steps["sum_up"].needs == ("scaled",)
    assert bound.steps["scaled"].inspection.params == {"factor": 3.0}


@pytest.mark.parametrize(
    ("old", "new", "location", "words"),
    [
        ("params:", "parms:", "11:5", "did you mean 'params'?"),
        ("factor: 3", "facto: 3", "11:14", "no parameter 'facto'; did you mean 'factor'?"),
        ("factor: 3", "factor: three", "11:14", "'three': Input should be a valid number"),
        (":scale", ":scal", "9:5", "no function 'scal'; did you mean 'scale'?"),
        ("counts: first", "counts: frist", "10:14", "no input or step 'frist'; did you mean 'first'?"),
        ("counts: first", "count: first", "10:14", "no input 'count'; did you mean 'counts'?"),
        ("left: scaled, ", "", "12:3", "the input 'left' of"),
        ("file: first.txt", "file: frist.txt", "5:11", "there is no file"),
        ("left: scaled", "left: total", "14:14", "takes its own result"),
        ("project: lab\n", "", "2:1", "the key 'project' is missing"),
        ("T12:00:00Z", "T12:00:00", "5:28", "the time zone is missing"),
        ('12:00:00Z"', '12:00:00Z", metadata: {crucible_lineage: 1}', "5:63", "'crucible_lineage' is reserved for the"),
        ("uses: LABMODULE:add", "uses: no_such_lab:add", "13:5", "there is no module 'no_such_lab'"),
        ("right: second", "right: first", "6:3", "input 'second' is not used by any step"),
        ("pipeline: counting", "pipeline: count/ing", "2:1", "pipeline"),
        ("left: scaled", "left: scaled.low", "14:14", "has no output 'low'"),
        (
            "left: scaled",
            "left: {from: scaled, group_by: sample}",
            "14:14",
            "an entry of the metadata is metadata.sample",
        ),
        ("counts: first", "counts: first.low", "10:14", "it has no output 'low'"),
        ("file: first.txt", "file: ../lab", "5:11", "is a folder; name its files, as in lab/*"),
        ("T12:00:00Z", "?", "5:28", "that is not a time; write it as in"),
        ("LABMODULE:add", "LABMODULE.py:add", "13:5", "does not name a Python module; did you mean"),
    ],
)
def test_a_fault_is_reported_with_its_location(
    lab: Any, faults: Any, old: str, new: str, location: str, words: str
) -> None:
    text = lab.pipeline.read_text().replace(lab.module, "LABMODULE")
    assert old in text
    found = faults(lab.declare(text.replace(old, new, 1)))
    assert any(message.startswith(f"{location}: ") and words in message for message in found), found


def test_all_faults_are_reported_at_once(lab: Any, faults: Any) -> None:
    text = lab.pipeline.read_text().replace("factor: 3", "facto: 3").replace("right: second", "rihgt: second")
    found = faults(lab.declare(text))
    assert any("'facto'" in message for message in found)
    assert any("'rihgt'" in message for message in found)
    assert not any("is missing" in message for message in found), "it is present, but misspelt"


def test_a_wrong_value_is_shown_as_declared(lab: Any, faults: Any) -> None:
    text = lab.pipeline.read_text().replace(f"    uses: {lab.module}:add\n", "").replace("file: first.txt, ", "")
    messages = "\n".join(faults(lab.declare(text)))
    assert "a step needs one of the keys uses (a function) and run (a command) (given: {" in messages
    assert "folder" not in messages
    assert "PosixPath" not in messages


def test_a_cycle_is_reported_with_its_path(lab: Any, faults: Any) -> None:
    text = lab.pipeline.read_text().replace("counts: first", "counts: total").replace("right: second", "right: first")
    found = faults(lab.declare(text.replace('  second: {file: second.txt, timestamp: "2024-05-01T12:05:00Z"}\n', "")))
    assert any("scaled -> total -> scaled" in message for message in found), found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import numpyy", "no module 'numpyy' is installed; did you mean 'numpy'? (import numpyy)"),
        ("import a_package_that_nobody_has", "is installed; install it for"),
        ("from pathlib import Pathh", "ImportError: cannot import name 'Pathh'"),
        ("x = (1,", "cannot be read: '(' was never closed"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero (x = 1 / 0)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_fault_at_its_line(lab: Any, line: str, words: str) -> None:
    module = lab.file("broken_lab.py", f"from pathlib import Path\n{line}\n")
    text = lab.pipeline.read_text().replace(f"{lab.module}:", "broken_lab:")
    with pytest.raises(InputError) as caught:
        bind_file(lab.declare(text), None)
    (fault,) = (fault for fault in caught.value.faults if "broken_lab" in fault.message)
    assert (fault.file, fault.line) == (str(module), 2)
    assert words in fault.message


def test_a_function_that_cannot_be_a_step_does_not_affect_others(lab: Any, run: Any) -> None:
    module = lab.folder / f"{lab.module}.py"
    wrong = "\n\n@step\ndef wrong(counts: str, *, out: Path) -> None: ...\n"
    module.write_text(module.read_text() + wrong)
    assert run(lab.pipeline).ok, "the process of a step imports the module, too"
    line = module.read_text().splitlines().index("def wrong(counts: str, *, out: Path) -> None: ...")
    with pytest.raises(InputError) as caught:
        bind_file(lab.declare(lab.pipeline.read_text().replace(":add", ":wrong")), None)
    fault = next(fault for fault in caught.value.faults if "is annotated str" in fault.message)
    assert (fault.file, fault.line) == (str(module), line)


def test_the_reason_why_a_function_cannot_be_a_step_is_reported(lab: Any, faults: Any) -> None:
    lab.file("odd_lab.py", "def add(left: int, right, *, out): pass\n")
    found = faults(lab.declare(lab.pipeline.read_text().replace(f"{lab.module}:add", "odd_lab:add")))
    assert any("input 'left' is annotated" in message for message in found), found


def test_one_of_several_outputs_must_be_named(lab: Any, faults: Any) -> None:
    text = (
        lab.pipeline.read_text()
        .replace(f"{lab.module}:scale", f"{lab.module}:split")
        .replace("params: {factor: 3}", "")
    )
    assert any("name one of them, as in scaled.low" in message for message in faults(lab.declare(text)))
