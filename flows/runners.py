"""Task runners by declaration: threads, processes, a Dask or a Ray cluster, or Dask workers as Slurm jobs."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from crucible_lineage.errors import InputError
from crucible_lineage.machine.disk import private_folder
from crucible_lineage.pipeline.declare.pipeline import Runner
from crucible_lineage.settings import JOBS_AT_ONCE

# The default runner: as many threads as the local engine has. Prefect's default is one for each step that is ready:
# then two machines would start all of them at once, and run each twice.
THREADS: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=JOBS_AT_ONCE)

# A worker of Slurm whose run has died ends after this time.
_ORPHANED_S = 60


def task_runner(declared: Runner, data: Path) -> TaskRunner[Any]:
    """Return the runner, not yet started. Raises InputError if its package is not installed."""
    if declared.type == "threads":
        return ThreadPoolTaskRunner(max_workers=declared.workers) if declared.workers else THREADS.duplicate()
    if declared.type == "processes":
        return ProcessPoolTaskRunner(max_workers=declared.workers)
    try:  # a cluster's library is installed only with its extra, and takes a second or two to import
        if declared.type == "slurm":
            return _slurm(declared, data)
        return _dask(declared) if declared.type == "dask" else _ray(declared)
    except ImportError as error:
        raise InputError(
            f"the runner {declared.type} needs the package {error.name}, which is not installed; "
            f"install crucible-lineage[{declared.type}]"
        ) from error


def _dask(declared: Runner) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    _quiet_dask()
    if declared.address:
        return DaskTaskRunner(address=declared.address)
    # Without Dask's dashboard, which would open a port to the network.
    cluster = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs={**cluster, **({"n_workers": declared.workers} if declared.workers else {})})


def _slurm(declared: Runner, data: Path) -> TaskRunner[Any]:
    """Return a Dask runner whose workers are Slurm jobs of one step at a time, up to `workers`, while there is work."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    from dask_jobqueue import SLURMCluster
    from prefect_dask.task_runners import DaskTaskRunner

    signal.signal(signal.SIGINT, on_interrupt)  # its import lets Ctrl-C exit at once
    _quiet_dask()
    if (sbatch := shutil.which("sbatch")) is None:
        raise InputError("the runner slurm needs `sbatch`; run this where Slurm is installed")
    logs = private_folder(data / "slurm")

    def cluster(**options: object) -> SLURMCluster:
        made = SLURMCluster(**options)
        script = logs / f"script-{os.getpid()}.sh"
        script.write_text(made.job_script(), encoding="utf-8")
        tested = subprocess.run([sbatch, "--test-only", script], capture_output=True, text=True, check=False)  # noqa: S603
        script.unlink()
        if tested.returncode:
            raise InputError(f"Slurm would reject the runner's jobs: {tested.stderr.strip()}\ncorrect its `options`")
        return made

    options = {
        "cores": 1,
        "processes": 1,
        "memory": "2GB",
        "python": sys.executable,
        "death_timeout": _ORPHANED_S,
        "log_directory": str(logs),
        "scheduler_options": {"dashboard_address": None},
        **declared.options,
    }
    workers = {"minimum": 0, "maximum": declared.workers or JOBS_AT_ONCE}
    return DaskTaskRunner(cluster_class=cluster, cluster_kwargs=options, adapt_kwargs=workers)


def _quiet_dask() -> None:
    """Silence Dask's log of connections and of their end with a run, unless the user configured its logging."""
    import dask.config

    if not dask.config.get("logging", None):
        logging.getLogger("distributed").setLevel(logging.WARNING)


def _ray(declared: Runner) -> TaskRunner[Any]:
    from prefect_ray import RayTaskRunner

    # The output of steps stays in Ray's logs: standard output is the command's.
    options: dict[str, Any] = {"log_to_driver": False}
    if not declared.address:  # without a dashboard, as with Dask, and without Ray's usage statistics
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False, **({"num_cpus": declared.workers} if declared.workers else {})}
    runner: TaskRunner[Any] = RayTaskRunner(address=declared.address, init_kwargs=options)
    return runner
