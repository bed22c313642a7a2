"""A flow stays the flow it was: shapes that people publish, each run plain and converted, and compared.

Calls in their order for each task, arguments (the very objects that tasks gave), values, states, errors, attempts, and
the parents that a person wrote down. A sixth of the shapes runs every time; all do with CRUCIBLE_NIGHTLY=1. What plain
Prefect does with that third is stored (shapes/plain.json) and used with the versions that are in it; with others, and
by night, it runs. To add a shape, write a function in shapes/shapes_*.py; if it is `fast`, run shapes/stored.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.nights import NIGHTLY, by_night, share
from tests.warm import WarmPython

RUN = Path(__file__).with_name("shapes") / "run.py"
LIMIT_S = 60  # for one shape; most take two
PINNED = Path(__file__).parents[2] / "requirements" / "test.txt"


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"shapes_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHAPES = dict(share([(name, one) for name, one in _load(RUN).load_all().items() if one.fast or NIGHTLY], 2))
stored = _load(RUN.with_name("stored.py"))
IS_STORED = stored.read()["versions"] == stored.versions()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Any]:
    if IS_STORED and not NIGHTLY:
        found: dict[str, Any] = stored.read()["shapes"]
        return found
    server, python = (request.getfixturevalue(name) for name in ("prefect_server", "warm_python"))
    return _all("plain", tmp_path_factory.mktemp("plain"), server, python)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, prefect_server: Any, warm_python: WarmPython) -> dict[str, Any]:
    return _all("converted", tmp_path_factory.mktemp("converted"), prefect_server, warm_python)


@pytest.mark.parametrize("name", SHAPES)
def test_a_flow_stays_the_flow_it_was(name: str, plain: dict[str, Any], converted: dict[str, Any]) -> None:
    shape, was, now = SHAPES[name], plain[name], converted[name]
    assert "hung" not in now, now
    for what in ("returned", "raised", "states"):
        assert now.get(what) == was.get(what), what
    assert _calls(shape, now) == _calls(shape, was)


@pytest.mark.parametrize("name", SHAPES)
def test_its_parents_are_those_that_a_person_wrote_down(name: str, converted: dict[str, Any]) -> None:
    now = converted[name]
    assert now.get("edges") == SHAPES[name].edges
    assert now["findings"] == []


@pytest.mark.parametrize("name", SHAPES)
def test_it_says_what_it_has_to_and_no_more(name: str, plain: dict[str, Any], converted: dict[str, Any]) -> None:
    lines = [line for line in converted[name]["heard"] if line not in plain[name]["heard"]]
    says = SHAPES[name].says
    assert [line for line in lines if not any(words in line for words in says)] == []
    assert [words for words in says if not any(words in line for line in lines)] == []


def test_what_is_stored_is_of_these_shapes_and_of_the_pinned_packages() -> None:
    found, pinned = stored.read(), PINNED.read_text(encoding="utf-8").split()
    assert found["digest"] == stored.digest(), "run python tests/tasks/shapes/stored.py"
    for name in stored.PACKAGES:
        assert f"{name}=={found['versions'][name]}" in pinned, "run python tests/tasks/shapes/stored.py"


@by_night("plain flows run by night")
@pytest.mark.skipif(not IS_STORED, reason="it is stored of other versions")
@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.fast])
def test_plain_prefect_does_what_is_stored(name: str, plain: dict[str, Any]) -> None:
    shape, was, now = SHAPES[name], stored.read()["shapes"][name], plain[name]
    assert {**now, "calls": _calls(shape, now)} == {**was, "calls": _calls(shape, was)}


def _calls(shape: Any, report: dict[str, Any]) -> dict[str, list[str]]:
    """Return the calls by task; without order if tasks run concurrently."""
    if shape.in_order:
        return dict(report["calls"])
    return {task: sorted(re.sub(r"#\d+", "", call) for call in calls) for task, calls in report["calls"].items()}


def _all(mode: str, folder: Path, server: Any, python: WarmPython) -> dict[str, Any]:
    """Return the outcome of each shape. After one that hangs, a new process runs the others."""
    found: dict[str, Any] = {}
    left = list(SHAPES)
    while left:
        last, lines = _some(mode, left, folder, server, python)
        found |= lines
        if last is None:
            break
        found[last] = {"hung": last, "heard": [], "findings": []}
        left = left[left.index(last) + 1 :]
    return found


def _some(
    mode: str, names: Sequence[str], folder: Path, server: Any, python: WarmPython
) -> tuple[str | None, dict[str, Any]]:
    """Return the outcomes of these shapes, and the one that did not end in time."""
    out, log = folder / f"{names[0]}.out", folder / "log"
    words = [str(RUN), mode, str(folder / "data"), str(folder / "files"), *names]
    process = python.start(words, server.environment, out, log)
    size, since = 0, time.monotonic()
    while process.poll() is None and time.monotonic() - since < LIMIT_S:
        time.sleep(0.1)
        if out.exists() and out.stat().st_size != size:
            size, since = out.stat().st_size, time.monotonic()
    is_hung = process.poll() is None
    if is_hung:
        process.kill()
        process.wait(60)
    found: dict[str, Any] = {}
    running: str | None = None
    for line in out.read_text().splitlines():
        if line.startswith("START "):
            running = line.split()[1]
        elif line.startswith("{"):
            report = json.loads(line)
            found[report["name"]], running = report, None
    assert running is not None or process.poll() == 0, log.read_text()[-4000:]
    return running, found
