"""docs/notebook.ipynb runs from its first cell to its last, and each cell shows the expected output."""

from __future__ import annotations

import ast
import json
import linecache
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def run_cell(source: str, number: int, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last line. Its source is available to `inspect`, as in IPython."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), name, "eval"), names)


def as_html(value: Any) -> str:
    return value._repr_html_() if hasattr(value, "_repr_html_") else ""


def test_it_runs_and_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    import sys
    import types

    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    module = types.ModuleType("notebook_of_the_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    shown = [as_html(run_cell("".join(cell["source"]), at, vars(module))) for at, cell in enumerate(cells)]
    for html in shown:
        HTMLParser(convert_charrefs=True).feed(html)
    planned, run, bands, table, lineage = shown[1], shown[2], shown[3], shown[4], shown[5]
    assert planned.count("  missing") == 3
    assert run.count(": executed") == 3
    assert "mean_absolute_error_cm1" in bands
    assert "data:image/png;base64," in bands
    assert "reference_cm1" in table
    assert lineage.count("<svg") == 1
    assert shown[8].count("current") >= 1
    assert "superseded" in shown[8]
    assert "worst_cm1" in shown[9]
    printed = capsys.readouterr().out
    assert "Made from" in printed
    assert "8 bands, at most" in printed
    if folder := os.environ.get("NOTEBOOK_PAGE"):
        page = "<hr>".join(shown)
        Path(folder).write_text(
            f"<!doctype html><meta charset=utf-8><body style='font-family:sans-serif'>{page}", "utf-8"
        )
