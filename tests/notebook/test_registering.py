"""Steps called in a script or a notebook are registered with the same ids as in a pipeline, without Prefect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import crucible_lineage as cl
from crucible_lineage.errors import InputError, StepError


def test_a_called_step_is_a_dataset_with_its_parents(steps: Any, data: Path) -> None:
    with cl.connect(data) as catalogue:
        with cl.registering("lab", catalogue=catalogue) as recorded:
            first = steps.scale(Path("first.txt"), factor=3)
            second = steps.scale(Path("second.txt"), factor=3)
            joined = steps.join([first, second])
            parts = steps.split(Path("first.txt"))
        assert (first.results["total_nm"], joined.results) == (18.0, {"parts": 4})
        assert set(joined.parents) == {first, second}
        assert [parent.name for parent in first.parents] == ["first.txt"]
        assert parts["high"].load() == "high"
        assert list(recorded.datasets) == [first, second, joined, parts["low"], parts["high"]]
        assert joined.load().count("value") == 2
        with cl.registering("lab", catalogue=catalogue):
            assert steps.scale(first.parents[0], factor=3) == first  # a dataset, and what is there
            assert steps.scale("first.txt", factor=3) == first  # by its name
            assert steps.join([first.mfid, second.mfid]) == joined
        assert len(catalogue.find(every=True)) == 7
        run = catalogue.run("pipeline.yaml")
        assert run["scaled[first.txt]"].results == first.results


def test_outside_of_the_block_a_step_is_a_plain_function(steps: Any, data: Path, tmp_path: Path) -> None:
    with cl.connect(data) as catalogue, cl.registering("lab", catalogue=catalogue):
        made = steps.scale(Path("first.txt"))
    assert steps.scale(Path("first.txt"), out=tmp_path) == {"total_nm": 12.0, "steps": 3}
    with pytest.raises(TypeError, match=r"from crucible_lineage\.tasks import registering"):
        cl.registering("lab", catalogue=cl.connect(data=data))(steps)
    with pytest.raises(InputError, match=r"crucible_lineage\.registering"):
        steps.scale(made, out=tmp_path)


def test_a_failed_step_registers_nothing_and_ends_the_block(steps: Any, data: Path, tmp_path: Path) -> None:
    with cl.connect(data) as catalogue:
        with pytest.raises(StepError, match="the lamp was off"):
            with cl.registering("lab", catalogue=catalogue):
                steps.fail(Path("first.txt"))
        assert [dataset.state for dataset in catalogue.find(every=True)] == ["raw"]
        assert steps.scale(Path("first.txt"), out=tmp_path)["steps"] == 3
        with cl.registering("lab", catalogue=catalogue), pytest.raises(InputError, match="there is no file nowhere"):
            steps.scale(Path("nowhere.txt"))
        with cl.registering("lab", catalogue=catalogue), pytest.raises(InputError, match=r"as Path\('./second\.txt'\)"):
            steps.scale("./second.txt")


def test_a_script_needs_no_prefect_and_gives_the_same_id(laboratory: Path, steps: Any, data: Path) -> None:
    (laboratory / "script.py").write_text(
        "import sys, json\nfrom pathlib import Path\nimport crucible_lineage as cl\n"
        f"import {steps.__name__} as steps\n"
        "with cl.registering('lab'):\n    made = steps.scale(Path('first.txt'), factor=3)\n"
        "print(json.dumps([made.mfid, made.results, 'prefect' in sys.modules]))\n"
    )
    printed = []
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "script.py"], capture_output=True, text=True, timeout=120, cwd=laboratory,
            env={**__import__("os").environ, "CRUCIBLE_LINEAGE_DATA": str(data)},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        printed.append(json.loads(ran.stdout))
    assert printed[0] == printed[1]
    assert printed[0][1:] == [{"total_nm": 18.0, "steps": 3}, False]


def test_the_newest_block_of_a_name_determines_current_results(steps: Any, data: Path) -> None:
    def states() -> dict[float, str]:
        return {dataset.params["factor"]: dataset.state for dataset in catalogue.find(step="scale", every=True)}

    with cl.connect(data) as catalogue:
        with cl.registering("lab", catalogue=catalogue, name="analysis"):
            steps.scale(Path("first.txt"), factor=2)
        with cl.registering("lab", catalogue=catalogue, name="analysis"):
            steps.scale(Path("first.txt"), factor=3)
            steps.scale(Path("first.txt"), factor=4)
        assert states() == {2.0: "superseded", 3.0: "current", 4.0: "current"}
        with cl.registering("lab", catalogue=catalogue, name="analysis"):
            steps.scale(Path("first.txt"), factor=2)  # going back
        assert states() == {2.0: "current", 3.0: "superseded", 4.0: "superseded"}
