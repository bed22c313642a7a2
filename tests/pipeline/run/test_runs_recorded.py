"""The runs in `status`: those that began, and how they ended; a refused run never began."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import UnreachableError
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from tests.serving import start_server


def test_a_run_that_is_refused_is_listed_with_the_reason(lab: Any, tmp_path: Path, command: Any) -> None:
    with start_server(tmp_path / "service") as server:
        where = {"CRUCIBLE_API_URL": server.url, "CRUCIBLE_API_KEY": server.api_key}
        where["CRUCIBLE_LINEAGE_DATA"] = str(tmp_path / "machine")
        refused = command("run", lab.pipeline, "--engine", "local", **where)
        assert refused.returncode == 2
        assert "project 'lab' does not exist" in refused.stderr
        assert "nothing was changed" in refused.stderr
        status = command("status", "--json", **where)
        (run,) = json.loads(status.stdout)["runs"]
        assert (run["state"], run["steps"]) == ("failed", {})
        assert "project 'lab' does not exist" in run["error"]


@pytest.mark.parametrize(("error", "outcome"), [(UnreachableError("away"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_a_run_that_ended_with_an_error_is_not_under_way(
    lab: Any, session: Session, error: BaseException, outcome: str
) -> None:
    def engine() -> Any:
        raise error

    with pytest.raises(type(error)):
        plan_and_run(bind_file(lab.pipeline, session.store), session, engine, lambda event: None)
    (run,) = session.journal.recent_runs("lab", 5)
    assert (run["outcome"], run["ended"] is not None) == (outcome, True)
