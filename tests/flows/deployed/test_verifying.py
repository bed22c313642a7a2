"""The flow verify-project: Completed if everything is as recorded, else Failed with a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RUN = """
import json, sys
from pathlib import Path
from crucible_lineage.flows.upkeep import verify_project
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.tasks import CrucibleConnection
crucible = CrucibleConnection(data=sys.argv[1])
states = []
for spoil in (False, True):
    if spoil:
        from crucible_lineage.tasks import session_for
        client = session_for(crucible).client
        child = next(d for d in client.datasets.list(project_id="lab") if "scaled" in (d.data_type or ""))
        (parent,) = client.datasets.list_parents(child.unique_id)
        client.datasets.unlink(parent.unique_id, child.unique_id)
    state = verify_project("lab", read_bytes=not spoil, crucible=crucible, return_state=True)
    states.append([state.type.value, state.message, str(state.state_details.flow_run_id)])
print(json.dumps([*states, child.unique_id]))
"""


def test_a_link_that_went_fails_the_verification_and_stands_in_its_table(
    lab: Any, data: Path, command: Any, prefect: Any
) -> None:
    ran = command("run", lab.pipeline, "--data", data, "--engine", "local")
    assert ran.returncode == 0, ran.stderr
    whole, spoilt, child = prefect.run(RUN, data)
    assert whole[0] == "COMPLETED", whole
    assert whole[1].startswith("project lab: no findings in 4 datasets")
    assert spoilt[0] == "FAILED"
    assert "there is no link between them" in spoilt[1]
    asked = {"artifacts": {"flow_run_id": {"any_": [spoilt[2]]}, "key": {"any_": ["findings"]}}}
    (table,) = prefect.post("artifacts/filter", asked)
    assert child in table["data"]
    assert "crucible link -p" in table["data"]
