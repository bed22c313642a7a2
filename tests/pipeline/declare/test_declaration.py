"""A wrong declaration is refused, each fault at its location; test_every_fault.py has most of them."""

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
        ('12:00:00Z"', '12:00:00Z", metadata: {crucible_lineage: 1}', "5:63", "'crucible_lineage' is reserved for the"),
        (
            "left: scaled",
            "left: {from: scaled, group_by: sample}",
            "14:14",
            "an entry of the metadata is metadata.sample",
        ),
        ("file: first.txt", "file: ../lab", "5:11", "is a folder; name its files, as in lab/*"),
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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import numpyy", "no module 'numpyy' is installed; did you mean 'numpy'? (import numpyy)"),
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
