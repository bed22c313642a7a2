"""The output of a step is in Prefect's log of its task, without secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.eventually import eventually

RUN = """
import json, sys
from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection
state = run_pipeline(sys.argv[1], CrucibleConnection(data=sys.argv[2]), return_state=True)
print(json.dumps({"state": state.type.value, "flow_run": str(state.state_details.flow_run_id)}))
"""
TALKS = """
import json
import os
from pathlib import Path
from pydantic import SecretStr

def talks(counts: Path, *, token: SecretStr, out: Path) -> None:
    print("printed", token.get_secret_value(), "and 50% more")
    os.system("echo from a program")
    for number in range(1000):
        print("line", number)
    (out / "x.txt").write_text("1")
"""


def test_what_a_step_prints_is_in_the_log_of_its_task(lab: Any, data: Path, prefect: Any) -> None:
    lab.file(f"{lab.module}_talks.py", TALKS)
    path = lab.declare(
        f"""
        pipeline: talking
        project: lab
        env: [LAB_TOKEN]
        inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
        steps:
          talked:
            uses: "{lab.module}_talks:talks"
            inputs: {{counts: first}}
            params: {{token: "${{env.LAB_TOKEN}}"}}
        """
    )
    variables = {"PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_TO_API_ENABLED": "true", "LAB_TOKEN": "hush-hush"}
    prefect.environment = {**prefect.environment, **variables}
    ran = prefect.run(RUN, path, data)
    assert ran["state"] == "COMPLETED"

    def logged() -> list[Any]:
        asked = {"logs": {"flow_run_id": {"any_": [ran["flow_run"]]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        found = [log for page in range(4) for log in prefect.post("logs/filter", {**asked, "offset": 200 * page})]
        found = [entry for entry in found if entry["task_run_id"]]
        return found if any(entry["message"] == "line 999" for entry in found) else []

    messages = [entry["message"] for entry in eventually(logged, 60)]
    assert "printed *** and 50% more" in messages
    assert "from a program" in messages
    assert not any("hush-hush" in message for message in messages)
    printed = [int(message.removeprefix("line ")) for message in messages if message.startswith("line ")]
    assert (printed[0], printed[-250:], len(printed)) == (0, [*range(750, 1000)], 498)
    assert messages[250].startswith("[... 502 lines left out here; see step.log of the result")


WAITS = """
import time
from pathlib import Path

def waits(counts: Path, *, out: Path) -> None:
    print("first light", flush=True)
    for _ in range(1200):
        if Path(__file__).with_name("go on").exists():
            break
        time.sleep(0.05)
    print("second light")
    (out / "x.txt").write_text("1")
"""


def test_what_a_step_prints_is_seen_while_it_runs(
    lab: Any, data: Path, prefect: Any, warm_python: Any, tmp_path: Path
) -> None:
    lab.file(f"{lab.module}_waits.py", WAITS)
    path = lab.declare(
        f"""
        pipeline: waiting
        project: lab
        inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
        steps:
          waited: {{uses: "{lab.module}_waits:waits", inputs: {{counts: first}}}}
        """
    )
    asked = ["run", str(path), "--data", str(data), "--engine", "prefect", "--verbose"]
    out, err = tmp_path / "out", tmp_path / "err"
    run = warm_python.start(["-m", "crucible_lineage", *asked], {**os.environ, **prefect.environment}, out, err)
    eventually(lambda: "first light" in err.read_text() or run.poll() is not None)
    assert "second light" not in err.read_text(), "it has not ended: it waits for a file"
    lab.file("go on", "")
    code, lines = run.wait(180), [line.strip() for line in err.read_text().splitlines()]
    assert code == 0, lines
    ours = [line for line in lines if line.startswith("waited")]
    assert ours[:2] == ["waited | first light", "waited | second light"], lines
    assert ours[2].startswith("waited  done in "), lines
    assert not list((data / "work").iterdir()), "what it went through is gone"


WRONG = """
import json, sys
from crucible_lineage.errors import InputError
from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection
crucible = CrucibleConnection(data=sys.argv[2])
state = run_pipeline(sys.argv[1], crucible, return_state=True)
try:
    run_pipeline(sys.argv[1], crucible)
except InputError as error:
    raised = str(error)
print(json.dumps({"state": state.name, "message": state.message, "raised": raised}))
"""


def test_what_is_wrong_with_a_declaration_is_the_message_of_the_flow_run_and_no_traceback(
    lab: Any, data: Path, prefect: Any
) -> None:
    path = lab.declare("pipeline: wrong\nproject: lab\nsteps: {}\nstep: {}\n")
    ran = prefect.python("-c", WRONG, path, data)
    state = json.loads(ran.stdout.splitlines()[-1])
    assert state["state"] == "Failed"
    assert "unknown key 'step'" in state["message"]
    assert state["raised"] == state["message"], "who calls the flow gets the error itself"
    assert "Traceback" not in ran.stderr
    assert "unknown key 'step'" in ran.stderr
