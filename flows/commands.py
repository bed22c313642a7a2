"""The flow that runs a command, as on a schedule: `verify`, `reproduce`, `rerun`, or another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from crucible_lineage.flows.pipelines import marked_alive
from crucible_lineage.flows.reports import failing_with_message
from crucible_lineage.lineage.labels import plain
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

MOST_LINES = 10  # chosen: last lines of the output in the message of the state


@flow(name="run-command", flow_run_name="{command[0]}", persist_result=False)
@failing_with_message
def run_command(command: list[str], crucible: CrucibleConnection | None = None) -> State[Any]:
    """Run a command of crucible-lineage. The flow run is Completed if its exit code is 0, else Failed.

    What it prints is in the log, and the end of that in the message of the state.

    Args:
        command: The command and its arguments, as in ["verify", "--project", "lab", "--bytes"]. Prefect stores them,
            so none may be a secret.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
    """
    settings = session_for(crucible).settings
    where = ["--data", str(settings.data), *(["--url", settings.api_url] if settings.api_url else [])]
    environment = {**os.environ, **({"CRUCIBLE_API_KEY": settings.api_key} if settings.api_key else {})}
    logger, lines = get_run_logger(), deque[str](maxlen=MOST_LINES)
    with (
        marked_alive(settings.data),
        subprocess.Popen(  # noqa: S603  this package
            [sys.executable, "-m", "crucible_lineage", *command, *where],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                logger.info("%s", plain(line.rstrip()))
                lines.append(plain(line.rstrip()))
        except BaseException:  # the flow run was cancelled
            process.terminate()
            raise
    message = "\n".join(lines)
    if process.returncode:
        return Failed(message=f"{command[0]} ended with exit code {process.returncode}:\n{message}")
    return Completed(message=message)
