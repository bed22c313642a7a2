"""On a real Prefect server: access to a bucket by a block, and the bucket as storage of task results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BLOCKS = """
import json, os, sys
from pathlib import Path
from prefect_gcp import GcpCredentials, GcsBucket
key = json.loads(Path(os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS")).read_text())
access = GcpCredentials(service_account_info=key)
access.save("lab", overwrite=True, _sync=True)
GcsBucket(bucket="beamline-raw", gcp_credentials=access).save("raw", overwrite=True, _sync=True)
results = GcsBucket(bucket="beamline-raw", bucket_folder="prefect", gcp_credentials=access)
results.save("results", overwrite=True, _sync=True)
"""
RUN = """
import json, sys
from prefect_gcp import GcsBucket
from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.tasks import CrucibleConnection
for path in sys.argv[2:]:
    flow = run_pipeline.with_options(persist_result=True, result_storage=GcsBucket.load("results", _sync=True))
    state = flow(path, CrucibleConnection(data=sys.argv[1]), return_state=True)
    print(json.dumps([state.type.value, state.message]))
"""
PIPELINE = """
pipeline: by-block
project: lab
inputs:
  first: {file: "gs://BUCKET/run7/first.txt", block: BLOCK}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: first}
"""


def test_blocks_give_access_and_a_bucket_holds_the_results_of_tasks(
    fake: Any, bucket: Any, lab: Any, data: Path, prefect: Any, key_file: Path, command: Any
) -> None:
    bucket.put("run7/first.txt", "1\n2\n")
    environment = {"STORAGE_EMULATOR_HOST": fake.url, "GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent"}
    made = prefect.python("-c", BLOCKS, **{**environment, "GOOGLE_APPLICATION_CREDENTIALS": str(key_file)})
    assert made.returncode == 0, made.stderr
    declared = [("beamline-raw", "raw"), ("beamline-raw", "gcp-credentials/lab"), ("other", "raw"), ("other", "absent")]
    paths = [
        lab.declare(PIPELINE.replace("BUCKET", where).replace("BLOCK", block), f"{number}.yaml")
        for number, (where, block) in enumerate(declared)
    ]
    ran = prefect.python("-c", RUN, data, *paths[:2], **environment)
    assert ran.stdout.count("COMPLETED") == 2, ran.stdout + ran.stderr
    names = bucket.names()
    assert any(name.startswith("prefect/") for name in names), "what the task returned"
    refused = [command("plan", path, "--data", data, **{**prefect.environment, **environment}) for path in paths[2:]]
    assert [ran.returncode for ran in refused] == [2, 2]
    assert "the block gives access to the bucket 'beamline-raw', not to 'other'" in refused[0].stderr
    assert "there is no usable block gcs-bucket/absent at this Prefect server" in refused[1].stderr
