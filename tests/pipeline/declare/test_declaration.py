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
