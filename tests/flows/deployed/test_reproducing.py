"""The flow reproduce-sample: Completed while results are reproduced, Failed once one is not, or is of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RUN = """
import json, os, sys
from crucible_lineage.flows.upkeep import reproduce_sample
from crucible_lineage.tasks import CrucibleConnection
from crucible_lineage.tasks.sessions import session_for

OTHER = "0000-0002-1825-0097"
crucible = CrucibleConnection(data=sys.argv[1])
states = []
for threads in ("1", "4"):
    os.environ["OMP_NUM_THREADS"] = threads
    state = reproduce_sample("lab", sample=5, here=True, crucible=crucible, return_state=True)
    states.append([state.type.value, state.message])
os.environ["OMP_NUM_THREADS"] = "1"
client = session_for(crucible).client
for dataset in client.datasets.list(project_id="lab", include_metadata=True):
    record = dataset.scientific_metadata.get("crucible_lineage", {})
    if "step" in record:
        record["agent"]["unique_id"] = OTHER
        client.metadata.merge(dataset.mfid, {"crucible_lineage": record})
for allowed in ([], [OTHER]):
    state = reproduce_sample("lab", here=True, crucible=crucible, run_code_of=allowed, return_state=True)
    states.append([state.type.value, state.message])
print(json.dumps(states))
"""


def test_the_first_that_is_not_the_same_fails_the_run(lab: Any, data: Path, command: Any, prefect: Any) -> None:
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text().replace("* factor for", "* factor * int(os.environ['OMP_NUM_THREADS']) for"))
    module.write_text(f"import os\n{module.read_text()}")
    ran = command(
        *("run", lab.pipeline, "--data", data, "--engine", "local"), OMP_NUM_THREADS="1", CRUCIBLE_LINEAGE_KEEP="yes"
    )
    assert ran.returncode == 0, ran.stderr
    same, other, foreign, allowed = prefect.run(RUN, data)
    assert same == ["COMPLETED", "project lab: 2 of 2 results reproduced"]
    assert other[0] == "FAILED"
    assert "1 of 2 results reproduced; the first: scaled" in other[1]
    assert foreign[0] == "FAILED"
    assert "code of others would run here, and was not run" in foreign[1]
    assert allowed[0] == "COMPLETED"
