"""Choose the engine that runs the steps of a command, and set up Prefect for it."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from crucible_lineage.cli.progress import Progress
from crucible_lineage.errors import InputError, LineageError, RunError, nearest
from crucible_lineage.machine.disk import private_folder
from crucible_lineage.machine.process import collector_frozen
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.plan.plan import PipelinePlan
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run, plan_for_run
from crucible_lineage.session import Session
from crucible_lineage.text.masking import WAY_OUT, masked

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from crucible_lineage.pipeline.engines.local import Engine

AUTO, PREFECT, LOCAL = "auto", "prefect", "local"
# Entry points of other packages: a name, and a callable that makes an Engine from a session and a number of jobs.
GROUP = "crucible_lineage.engines"
ENGINES = {LOCAL: "crucible_lineage.pipeline.engines.local:LocalEngine"}

_STARTUP_TIMEOUT = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
# No telemetry; a slow machine gets time to start Prefect's ephemeral API (Prefect's own limit is 20 s).
PREFECT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    _STARTUP_TIMEOUT: "180",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


def run_with_engine(
    engine: str,
    pipeline: BoundPipeline,
    session: Session,
    progress: Progress,
    jobs: int,
    overrides: Mapping[str, object] = MappingProxyType({}),
    choice: StepChoice = StepChoice(),
) -> RunResult:
    """Run a pipeline on Prefect, in this process (`local`), or on an engine of another package.

    `auto` is Prefect if it is configured, else this process. If everything is fresh, Prefect is not imported.
    """
    is_on_prefect = engine == PREFECT or (engine == AUTO and prefect_is_configured())
    with collector_frozen():  # until the command ends
        planned = plan_for_run(pipeline, session, progress.listen, choice)
    if is_on_prefect and not planned.is_done:
        return _run_on_prefect(pipeline, session, progress, dict(overrides), choice, planned)

    def make() -> Engine:  # called only if the run has something to do
        made: Engine = engine_entry(LOCAL if engine in (AUTO, PREFECT) else engine).load()(session, jobs)
        return made

    return plan_and_run(pipeline, session, make, progress.listen, choice, progress.stop, planned=planned)


def engine_entry(name: str) -> EntryPoint:
    """Return where an engine is. Raises InputError if neither this nor another package has one of this name."""
    from importlib.metadata import EntryPoint, entry_points

    if name in ENGINES:  # ours cannot be replaced
        return EntryPoint(name, ENGINES[name], GROUP)
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        raise InputError(
            f"run on {name!r}: no such engine; {nearest(name, [AUTO, PREFECT, *ENGINES, *others])} (--engine)"
        )
    return others[name]


def prefect_is_configured() -> bool:
    """True if a Prefect API is named in the environment or in the active Prefect profile. Does not import Prefect."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    import tomllib

    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return False
    active = profiles.get("profiles", {}).get(os.environ.get("PREFECT_PROFILE") or profiles.get("active"), {})
    return bool(active.get("PREFECT_API_URL"))


def _run_on_prefect(
    pipeline: BoundPipeline,
    session: Session,
    progress: Progress,
    overrides: dict[str, object],
    choice: StepChoice,
    planned: PipelinePlan,
) -> RunResult:
    """Run the pipeline as a Prefect flow."""
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)
    server = None
    if not prefect_is_configured():
        click.echo("starting Prefect for this run; this takes some seconds", err=True)
        os.environ.setdefault("PREFECT_HOME", str(private_folder(session.settings.data / "prefect")))
        for name in ("NO_PROXY", "no_proxy"):  # else Prefect would reach its own server through a proxy
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
        if os.name != "nt" and "prefect" not in sys.modules:  # else Prefect starts its server when it needs one
            server = _TemporaryServer(Path(os.environ["PREFECT_HOME"]).expanduser())
    with collector_frozen():  # importing Prefect costs over a second; only a run that has something to do pays for it
        from crucible_lineage.flows.pipelines import Observer, observing, reaching_prefect, run_pipeline
        from crucible_lineage.tasks.sessions import CrucibleConnection, share_session

    if server:  # Prefect has read it; processes that steps start must not use this run's server
        del os.environ["PREFECT_API_URL"]
    share_session(session)
    path, connection = str(pipeline.spec.path), CrucibleConnection().settled(session.settings)
    if masked(overrides) != overrides:
        raise InputError(f"run --set: Prefect keeps parameters of a run, and one is or holds a secret; {WAY_OUT}")
    way_out = "registered results are kept: run the same command again when it is back, or with --engine local"
    observer = Observer(progress.listen, choice, progress.stop, pipeline, planned)
    with observing(observer), reaching_prefect("run the pipeline", way_out):
        if server:
            server.wait_until_ready()
        state = run_pipeline(path, connection, overrides, return_state=True)
    if observer.result is None:
        error = state.result(raise_on_failure=False)
        if isinstance(error, LineageError):
            raise error
        raise RunError(f"the Prefect flow ended before the pipeline was run: {state.message}")
    return observer.result


# Ends with the process that started it, even if that is killed.
_SERVE = """
import os, signal, socket, sys, threading
listener, lifeline = map(int, sys.argv[1:])
def watch():
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
import uvicorn
config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])
"""
_END_S = 5.0  # Prefect's own timeout
_SERVER_SETTINGS = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


class _TemporaryServer:
    """Prefect's temporary server, started while this process imports Prefect, and not after that."""

    def __init__(self, home: Path) -> None:
        import socket  # few runs need it

        home.mkdir(parents=True, exist_ok=True)
        self._log = home / "server.log"
        lifeline, _ = os.pipe()  # the other end is closed when this process ends
        with socket.create_server(("127.0.0.1", 0)) as listener, self._log.open("ab") as log:
            self._url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            inherited = (listener.fileno(), lifeline)
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter with the lines above)
                [sys.executable, "-P", "-c", _SERVE, *map(str, inherited)],
                pass_fds=inherited,
                env={**os.environ, **_SERVER_SETTINGS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(lifeline)
        os.environ["PREFECT_API_URL"] = self._url
        atexit.register(self._end)  # called after what Prefect registers later, which sends the last events

    def wait_until_ready(self) -> None:
        """Wait for the server's first answer. Raises RuntimeError, as Prefect does, on a timeout."""
        import httpx

        from crucible_lineage.flows.pipelines import NOT_STARTED

        try:
            httpx.get(f"{self._url}/health", timeout=float(os.environ[_STARTUP_TIMEOUT])).raise_for_status()
        except httpx.HTTPError as error:
            raise RuntimeError(f"{NOT_STARTED}; its log is {self._log}") from error

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
