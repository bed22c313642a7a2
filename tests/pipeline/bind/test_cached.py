"""A cached binding is used while nothing has changed, never under other rules, and reading it runs no code."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.local.checksummed import sealed, unsealed
from crucible_lineage.pipeline.bind import cached
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.functions import inspect
from crucible_lineage.session import Session

PACKAGE = Path(__file__).parents[3] / "crucible_lineage"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that counts how often declarations were read during the test."""
    from crucible_lineage.pipeline.declare import load

    times = []
    original = load.read_declaration
    monkeypatch.setattr(load, "read_declaration", lambda *arguments: times.append(1) or original(*arguments))
    return lambda: len(times)


def found(session: Session) -> list[tuple[str, Any]]:
    rows = session.store.database.rows("SELECT asked, rules, found FROM inspected")
    return [(asked, unsealed(text, asked, rules)) for asked, rules, text in rows]


def rewrite(session: Session, change: Callable[[Any], None]) -> None:
    """Change stored inspections as if another version had written them."""
    for asked, value in found(session):
        change(value)
        kept = sealed(value, asked, inspect.RULES)
        session.store.database.write("UPDATE inspected SET found = ? WHERE asked = ?", kept, asked)


def test_a_cached_binding_equals_the_original(lab: Any, session: Session, read: Any) -> None:
    first = bind_file(lab.pipeline, session.store)
    again = bind_file(lab.pipeline, session.store)
    assert again == first
    assert read() == 1


def test_the_pipeline_of_the_demo_is_cached(session: Session, read: Any) -> None:
    path = PACKAGE.parent / "deployments" / "pipelines" / "raman.yaml"
    assert bind_file(path, session.store) == bind_file(path, session.store)
    assert read() == 1


@pytest.mark.parametrize(
    "declared", ["2024-05-01", "2024-05-01 12:00:00", "-0.0", "1e9", "{a: [1, 2.0, null]}", "café"]
)
def test_values_of_every_kind_survive_the_cache(lab: Any, session: Session, declared: str) -> None:
    lab.file(f"{lab.module}_any.py", "def take(counts, *, value, out):\n    pass\n")
    path = lab.declare(
        'pipeline: p\nproject: lab\ninputs: {first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}\n'
        f"steps: {{one: {{uses: 'LABMODULE_any:take', inputs: {{counts: first}}, params: {{value: {declared}}}}}}}\n"
    )
    first = bind_file(path, session.store)
    assert bind_file(path, session.store) == first


def test_a_binding_under_other_rules_is_not_used(
    lab: Any, session: Session, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind_file(lab.pipeline, session.store)
    for module in (cached, inspect):
        monkeypatch.setattr(module, "RULES", "crucible-lineage/code/99")
    bind_file(lab.pipeline, session.store)
    assert read() == 2
    rules = session.store.database.rows("SELECT DISTINCT rules FROM inspected")
    assert rules == [("crucible-lineage/code/99",)], "entries under other rules are removed"


def test_the_rules_name_the_version_and_both_schemes() -> None:
    from crucible_lineage import __version__
    from crucible_lineage.ids import CODE_TAG, RECIPE_TAGS

    for part in (__version__, CODE_TAG.decode().strip(), RECIPE_TAGS[2].decode().strip()):
        assert part in inspect.RULES.split()


def _added(value: Any) -> None:
    for function in value.get("functions", [value]):
        function["invented"] = 1


def _removed(value: Any) -> None:
    for function in value.get("functions", [value]):
        function.pop("fingerprint")


def _other_kind(value: Any) -> None:
    for function in value.get("functions", [value]):
        function["outputs"] = "out"


@pytest.mark.parametrize("change", [_added, _removed, _other_kind])
def test_an_entry_of_another_version_is_not_used(
    lab: Any, session: Session, read: Any, change: Callable[[Any], None]
) -> None:
    first = bind_file(lab.pipeline, session.store)
    rewrite(session, change)
    assert bind_file(lab.pipeline, session.store) == first
    assert read() == 2


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


def test_a_function_of_many_steps_is_stored_once(lab: Any, session: Session) -> None:
    steps = "".join(
        f"  s{number}: {{uses: 'LABMODULE:scale', inputs: {{counts: first}}, params: {{factor: {number}}}}}\n"
        for number in range(20)
    )
    path = lab.declare(
        'pipeline: p\nproject: lab\ninputs: {first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}\nsteps:\n'
        + steps
    )
    bind_file(path, session.store)
    (stored,) = [value for _, value in found(session) if "functions" in value]
    assert len(stored["functions"]) == 1
    assert json.dumps(stored).count("values = [float(line)") == 1
