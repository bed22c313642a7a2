"""The flow `rerun`: what is stale in a project is made again as Prefect tasks, without its declaration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RERUN = """
import json, sys
from crucible_lineage.flows import rerun
from crucible_lineage.tasks import CrucibleConnection
state = rerun(project="lab", crucible=CrucibleConnection(data=sys.argv[1]), return_state=True)
print(json.dumps({"state": state.type.value, "result": state.result() if state.is_completed() else state.message}))
"""


def test_what_is_stale_is_made_again_without_its_declaration(lab: Any, data: Path, command: Any, prefect: Any) -> None:
    local = ("--data", data, "--engine", "local", "--json")
    first = json.loads(command("run", lab.pipeline, *local).stdout)["datasets"]
    module = lab.folder / f"{lab.module}.py"
    module.write_text(module.read_text().replace("float(line) * factor for", "factor * float(line) for"))
    declaration = lab.pipeline.read_text()
    lab.pipeline.unlink()
    ran = prefect.run(RERUN, data)
    assert ran["state"] == "COMPLETED", ran
    assert len(ran["result"]["executed"]) == 2, "what was made from it is made again too"
    lab.pipeline.write_text(declaration)
    later = json.loads(command("run", lab.pipeline, *local).stdout)
    assert later["executed"] == [], "the pipeline finds what the rerun made"
    assert later["datasets"]["total"] != first["total"]
