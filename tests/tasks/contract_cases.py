"""What a registering flow says and leaves behind: `contract_cases.py DATA FOLDER`; prints JSON by case."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.client.orchestration import get_client

from crucible_lineage.tasks import CrucibleConnection, lineage, registering, session_for

HERE = CrucibleConnection(data=sys.argv[1])
FOLDER = Path(sys.argv[2])


@task
def acquire(seconds: float, what: str = "open", gain: int = 2) -> np.ndarray[Any, Any]:
    return np.full((8, 8), seconds * gain)


@task
def total(image: np.ndarray[Any, Any]) -> float:
    return float(image.sum())


@task
def fail(image: np.ndarray[Any, Any]) -> float:
    raise ValueError("no beam")


def names() -> Any:
    @flow
    @registering("names-of-results", crucible=HERE)
    def process() -> float:
        acquire(5.0, "dark")
        return total(acquire(2.5))

    process()
    found = session_for(HERE).client.datasets.list(project_id="names-of-results", limit=None)
    return sorted(str(one.dataset_name) for one in found)


def failed() -> Any:
    """Fail, with an artifact of all results, even unconnected ones."""

    @flow(name="fails")
    @registering("failed-run", crucible=HERE)
    def process() -> None:
        acquire(1.0)
        total(acquire(2.0))
        fail(acquire(3.0))

    state = process(return_state=True)
    with get_client(sync_client=True) as client:
        (one,) = [
            found
            for found in _artifacts(client)
            if str(found["flow_run_id"]) == str(state.state_details.flow_run_id) and found["key"] == "lineage"
        ]
    return [state.name, [name in one["data"] for name in ("acquire [1.0]", "acquire [2.0]", "acquire [3.0]", "total")]]


def _artifacts(client: Any) -> Any:
    return client._client.post("/artifacts/filter", json={}).json()


def strict() -> Any:
    @flow
    @registering("strict-run", crucible=HERE, strict=True)
    def process(derived: bool) -> float:
        image = acquire(4.0) + np.arange(8.0)
        return total(lineage.derived(image * 2, acquire(4.0)) if derived else image * 2)

    try:
        process(False)
    except Exception as error:
        return [type(error).__name__, str(error).partition(". ")[0], process(True)]
    return None


def unknown() -> Any:
    """Note in the metadata that parents are not known."""

    @flow
    @registering("unknown-parents", crucible=HERE)
    def process() -> float:
        return total(acquire(4.0) + np.arange(8.0))

    process()
    found = session_for(HERE).client.datasets.list(
        project_id="unknown-parents", keyword=None, include_metadata=True, limit=None
    )
    return [
        (one.scientific_metadata or {})["flow"].get("unknown_parents")
        for one in found
        if (one.scientific_metadata or {}).get("flow", {}).get("task") == "total"
    ]


def described() -> Any:
    """Describe a result while the task runs, with a dataset and an address that it used."""

    @task
    @lineage.options(ignore="password")
    def reduce(uid: str, password: str) -> list[float]:
        lineage.used(f"tiled://raw/{uid}")
        lineage.describe(measurement="SAXS", sample="gold", dataset_name="reduced {uid}")
        return [1.5, 2.5]

    @flow
    @registering("described-run", crucible=HERE)
    def process() -> Any:
        return reduce("5f", "hunter2")

    process()
    process()
    session = session_for(HERE)
    found = session.client.datasets.list(project_id="described-run", include_metadata=True, limit=None)
    (made,) = [one for one in found if one.measurement == "SAXS"]
    (parent,) = session.client.datasets.list_parents(made.unique_id)
    metadata = made.scientific_metadata or {}
    return [len(found), made.dataset_name, metadata["sample"], parent.dataset_name, "hunter2" in json.dumps(metadata)]


def numbers() -> Any:
    """Use NumPy numbers: as one list, as searchable metadata, and as links of extracted items."""

    @task
    def means(count: int) -> list[np.float64]:
        return [np.float64(n) / 3 for n in range(count)]

    @task
    def summary(values: list[np.float64]) -> dict[str, Any]:
        return {"mean": np.mean(values), "n": np.int64(len(values)), "image": np.arange(64.0)}

    @task
    def half(value: np.float64) -> float:
        return float(value) / 2

    @flow
    @registering("numbers-of-numpy", crucible=HERE)
    def process() -> bool:
        found = means(50)
        half(summary(found)["mean"])
        return type(found[0]) is np.float64

    kept = process()
    session = session_for(HERE)
    client = session.client
    found = client.datasets.list(project_id="numbers-of-numpy", include_metadata=True, limit=None)
    by_task = {(one.scientific_metadata or {})["flow"]["task"]: one for one in found}
    metadata = by_task["summary"].scientific_metadata or {}
    parents = [one.dataset_name for one in client.datasets.list_parents(by_task["half"].unique_id)]
    files = sorted(file.filename for file in client.files.list(dataset_mfid=by_task["means"].unique_id))
    return [kept, files, round(metadata["mean"], 6), metadata["n"], parents]


def outside() -> Any:
    """Call outside `registering`, where nothing is recorded, and `used` in a flow's own code, which has no task."""

    @task
    def plain(n: int) -> int:
        lineage.used("tiled://raw/1")
        lineage.wrote(FOLDER / "x")
        lineage.describe(sample="gold")
        return int(lineage.derived(n, n))

    @flow
    @registering("said-outside", crucible=HERE)
    def process() -> str:
        try:
            lineage.used("tiled://raw/1")
        except Exception as error:
            return str(error)
        return ""

    return [plain.fn(3), process()]


def main() -> None:
    cases: list[Callable[[], Any]] = [names, failed, strict, unknown, described, numbers, outside]
    print(json.dumps({case.__name__: case() for case in cases}))


if __name__ == "__main__":
    main()
