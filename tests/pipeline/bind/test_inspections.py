"""Inspections of steps are kept while nothing has changed, never under other rules, and reading them runs no code."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.machine.checksums import sealed, unsealed
from crucible_lineage.pipeline.plan import inspect
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.session import Session

PACKAGE = Path(__file__).parents[3] / "crucible_lineage"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that counts how often a function was imported to be inspected during the test."""
    times = []
    original = inspect.find_step
    monkeypatch.setattr(inspect, "find_step", lambda *arguments: times.append(1) or original(*arguments))
    return lambda: len(times)


def rewrite(session: Session, change: Callable[[Any], None]) -> None:
    """Change kept inspections as if another version had written them."""
    for asked, rules, text in session.store.rows("SELECT asked, rules, found FROM inspected"):
        change((value := unsealed(text, asked, rules))["inspection"])
        kept = sealed(value, asked, inspect.RULES)
        session.store.write("UPDATE inspected SET found = ? WHERE asked = ?", kept, asked)


def test_a_binding_with_kept_inspections_equals_the_first(lab: Any, session: Session, found: Any) -> None:
    first = bind_file(lab.pipeline, session.store)
    assert found() == 2
    assert bind_file(lab.pipeline, session.store) == first
    assert found() == 2


@pytest.mark.parametrize("declared", ["2024-05-01", "-0.0", "{a: [1, 2.0, null]}"])
def test_values_of_every_kind_survive_being_kept(lab: Any, session: Session, declared: str) -> None:
    lab.file(f"{lab.module}_any.py", "def take(counts, *, value, out):\n    pass\n")
    path = lab.declare(
        'pipeline: p\nproject: lab\ninputs: {first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}\n'
        f"steps: {{one: {{uses: 'LABMODULE_any:take', inputs: {{counts: first}}, params: {{value: {declared}}}}}}}\n"
    )
    first = bind_file(path, session.store)
    assert bind_file(path, session.store) == first


def test_an_inspection_under_other_rules_is_not_used(
    lab: Any, session: Session, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind_file(lab.pipeline, session.store)
    monkeypatch.setattr(inspect, "RULES", "crucible-lineage/code/99")
    bind_file(lab.pipeline, session.store)
    assert found() == 4
    rules = session.store.rows("SELECT DISTINCT rules FROM inspected")
    assert rules == [("crucible-lineage/code/99",)], "entries under other rules are removed"


def test_the_rules_name_the_version_and_both_schemes() -> None:
    from crucible_lineage import __version__
    from crucible_lineage.ids import CODE_TAG, RECIPE_TAGS

    for part in (__version__, CODE_TAG.decode().strip(), RECIPE_TAGS[2].decode().strip()):
        assert part in inspect.RULES.split()


@pytest.mark.parametrize(
    "change",
    [
        lambda function: function.update(invented=1),
        lambda function: function.pop("fingerprint"),
        lambda function: function.update(outputs="out"),
    ],
)
def test_an_inspection_of_another_version_is_not_used(
    lab: Any, session: Session, found: Any, change: Callable[[Any], None]
) -> None:
    first = bind_file(lab.pipeline, session.store)
    rewrite(session, change)
    assert bind_file(lab.pipeline, session.store) == first
    assert found() == 4


def test_reading_the_cache_cannot_run_code(lab: Any, data: Path, command: Any) -> None:
    arguments = ["run", str(lab.pipeline), "--engine", "local", "--data", str(data)]
    assert command(*arguments).returncode == 0
    watching = (
        "import sys\n"
        "def hook(event, arguments):\n"
        "    if event in ('pickle.find_class', 'marshal.loads') and 'importlib' not in str(sys._getframe(1).f_code):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(hook)\n"
        "from crucible_lineage.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    for name in ("plan", "run"):
        ended = subprocess.run(
            [sys.executable, "-c", watching, name, *arguments[1 : 2 if name == "plan" else 4], "--data", str(data)],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr


def test_no_module_imports_a_library_that_turns_bytes_into_code() -> None:
    banned = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    imported = {
        (path.name, name.partition(".")[0])
        for root in (PACKAGE, PACKAGE.parent / "tasks", PACKAGE.parent / "flows")
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert {(file, name) for file, name in imported if name in banned} == set()
