"""Task runners by declaration: threads, processes, a Dask or a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.engines.slurm import MOST_WAITING
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.settings import JOBS_AT_ONCE

# The default runner: as many threads as the local engine has. Prefect's default is one for each step that is ready:
# then two machines would start all of them at once, and run each twice.
THREADS: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=JOBS_AT_ONCE)

# A cluster's library is installed only with its extra and takes a second or two to import.


def task_runner(declared: Runner) -> TaskRunner[Any]:
    """Return the runner, not yet started. Raises InputError if its package is not installed."""
    if declared.type == "threads":
        return ThreadPoolTaskRunner(max_workers=declared.workers) if declared.workers else THREADS.duplicate()
    if declared.type == "slurm":  # threads only wait for jobs, and more of them allow larger job arrays
        return ThreadPoolTaskRunner(max_workers=MOST_WAITING)
    if declared.type == "processes":
        return ProcessPoolTaskRunner(max_workers=declared.workers)
    try:
        return _dask(declared) if declared.type == "dask" else _ray(declared)
    except ImportError as error:
        raise InputError(
            f"the runner {declared.type} needs the package {error.name}, which is not installed; "
            f"install crucible-lineage[{declared.type}]"
        ) from error


@contextmanager
def requesting(runner: TaskRunner[Any] | None, resources: Mapping[str, float]) -> Iterator[None]:
    """Submit tasks in this block only where these resources are free; threads and processes have none."""
    kind = type(runner).__name__
    if not resources or kind not in ("DaskTaskRunner", "RayTaskRunner"):
        yield
        return
    with _dask_resources(resources) if kind == "DaskTaskRunner" else _ray_resources(resources):
        yield


def _dask(declared: Runner) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    _quiet_dask()
    if declared.address:
        return DaskTaskRunner(address=declared.address)
    if declared.cluster:
        options = {"dashboard_address": "127.0.0.1:0", **declared.options}  # Dask's own would be open to the network
        scale: JsonObject = {"adapt_kwargs": {"minimum": 1, "maximum": declared.workers}} if declared.workers else {}
        return DaskTaskRunner(cluster_class=_cluster_class(declared.cluster), cluster_kwargs=options, **scale)
    # Without Dask's dashboard, which would open a port to the network.
    cluster = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs={**cluster, **({"n_workers": declared.workers} if declared.workers else {})})


def _quiet_dask() -> None:
    """Silence Dask's log of each connection, and its traceback for each one that ends when a run is stopped.

    A user's own configuration of Dask's logging is kept.
    """
    import dask.config

    if not dask.config.get("logging", None):
        logging.getLogger("distributed").setLevel(logging.WARNING)


def _cluster_class(name: str) -> Any:
    module, _, kind = name.rpartition(".")
    try:
        cluster = getattr(import_module(module), kind, None)
    except ModuleNotFoundError as error:
        raise InputError(f"the cluster {name} needs the package {error.name}, which is not installed") from error
    if cluster is None:
        raise InputError(f"the package {module} has no cluster {kind}")
    return cluster


def _ray(declared: Runner) -> TaskRunner[Any]:
    from prefect_ray import RayTaskRunner

    # The output of steps stays in Ray's logs: standard output is the command's.
    options: dict[str, Any] = {"log_to_driver": False}
    if not declared.address:  # without a dashboard, as with Dask, and without Ray's usage statistics
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False, **({"num_cpus": declared.workers} if declared.workers else {})}
    runner: TaskRunner[Any] = RayTaskRunner(address=declared.address, init_kwargs=options)
    return runner


def _dask_resources(resources: Mapping[str, float]) -> Any:
    import dask

    annotate: Any = vars(dask)["annotate"]  # re-exported, but not for type checkers
    return annotate(resources=dict(resources))


def _ray_resources(resources: Mapping[str, float]) -> Any:
    from prefect_ray.context import remote_options

    known = {"cpu": "num_cpus", "gpu": "num_gpus", "memory": "memory"}
    options = {known[name]: amount for name, amount in resources.items() if name in known}
    own = {name: amount for name, amount in resources.items() if name not in known}
    return remote_options(**options, **({"resources": own} if own else {}))
