"""Optional inputs: steps use them as soon as they exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crucible_lineage.errors import InputError

Run = Callable[..., Any]


OPTIONAL = """
from pathlib import Path

from crucible_lineage import step


@step
def corrected(spectrum: Path, dark: Path | None = None, *, out: Path) -> dict:
    offset = float(dark.read_text()) if dark else 0.0
    (out / "corrected.txt").write_text(str(float(spectrum.read_text()) - offset))
    return {"dark": dark is not None}


@step
def total(spectra: list[Path], *, out: Path) -> dict:
    (out / "total.txt").write_text(str(sum(float(path.read_text()) for path in spectra)))
    return {}
"""


def test_an_optional_role_is_filled_where_its_input_exists(lab: Any, run: Run, text_of: Any) -> None:
    lab.file(f"{lab.module}.py", OPTIONAL)
    for name in ("A_1.txt", "B_1.txt"):
        lab.file(name, "10")
    lab.file("dark_A.txt", "3")
    text = r"""
    pipeline: optional
    project: lab
    inputs:
      spectrum:
        file: "[AB]_1.txt"
        each: true
        timestamp: "2024-05-01T12:00:00Z"
        instrument_name: from name '([AB])[_.]'
        metadata: {exposure_s: 10, power_mW: 5}
      dark:
        file: "dark_*.txt"
        each: true
        timestamp: "2024-05-01T11:00:00Z"
        instrument_name: from name '([AB])[_.]'
        metadata: {exposure_s: 10}
        match: {spectrum: instrument_name}
    steps:
      corrected: {uses: "LABMODULE:corrected", inputs: {spectrum: spectrum, dark: dark}}
    """
    result = run(lab.declare(text))
    assert result.ok, result.errors
    made = {name: text_of(outputs["out"]) for name, outputs in result.datasets.items()}
    assert made == {"corrected[A_1.txt]": "7.0", "corrected[B_1.txt]": "10.0"}
    lab.file("dark_B.txt", "4")
    assert run(lab.pipeline).executed == ["corrected[B_1.txt]"]
    before, _, after = text.partition("      dark:\n")
    alone = before + after[after.index("    steps:") :].replace(", dark: dark}", "}")
    assert run(lab.declare(alone)).ok


@pytest.mark.parametrize("file", ["late*.txt"])
def test_an_optional_file_is_used_as_soon_as_it_exists(lab: Any, run: Run, text_of: Any, file: str) -> None:
    lab.file(f"{lab.module}.py", OPTIONAL)
    lab.file("first.txt", "10")
    text = f"""
    pipeline: later
    project: lab
    inputs:
      spectrum: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
      dark: {{file: "{file}", optional: true, timestamp: "2024-05-01T11:00:00Z"}}
    steps:
      corrected: {{uses: "LABMODULE:corrected", inputs: {{spectrum: spectrum, dark: dark}}}}
    """
    path = lab.declare(text)
    without = run(path)
    assert text_of(without.datasets["corrected"]["out"]) == "10.0"
    assert run(path).executed == []
    needed = run(lab.declare(text.replace("{spectrum: spectrum, dark: dark}", "{spectrum: dark, dark: spectrum}")))
    assert needed.errors["corrected"].endswith("input dark has no dataset")
    lab.file("later.txt", "3")
    assert text_of(run(lab.declare(text)).datasets["corrected"]["out"]) == "7.0"


def test_an_optional_dataset_of_several_files_has_all_or_none(lab: Any, run: Run) -> None:
    text = """
    pipeline: later
    project: lab
    inputs:
      spectra: {file: [first.txt, second.txt], optional: true, timestamp: "2024-05-01T12:00:00Z"}
    steps:
      mean: {uses: "LABMODULE:total", inputs: {spectra: spectra}}
    """
    lab.file(f"{lab.module}.py", OPTIONAL)
    lab.file("first.txt", "1")
    (lab.folder / "second.txt").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"there is no file .*second\.txt, but others of this dataset exist"):
        run(lab.declare(text))
    lab.file("second.txt", "3")
    assert run(lab.pipeline).ok
