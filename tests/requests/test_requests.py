"""Requests for results: one child for each, whatever is repeated, killed or away; others are parked with a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from crucible import CrucibleClient as OfficialClient

from tests.golden.stored import run_examples
from tests.requests.conftest import KINDS, PIPELINE, Broker, Facility

# `answer`, killed when it is about to acknowledge.
KILLED = """
import os, sys
from crucible_lineage.pipeline import requests
requests._ending = lambda *_: lambda ended: os.kill(os.getpid(), 9)
from crucible_lineage.cli import main
main()
"""


def message(mfid: str, **more: Any) -> str:
    return json.dumps({"dsid": mfid, **more})


def test_what_a_message_asks_for_and_how_it_ends() -> None:
    run_examples(Path(__file__).with_name("requests.txt"))


def test_two_projects_and_repetitions(facility: Facility, broker: Broker) -> None:
    first, second = facility.measure("a.txt"), facility.measure("b.txt", "proj2")
    broker.send(message(first), message(second), message(first), message(first))
    done = facility.answer("--queue", broker.url)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("complete") == 4
    assert "guest" not in done.stdout + done.stderr
    assert facility.calls() == 2
    for mfid, project in ((first, "proj1"), (second, "proj2")):
        (child,) = facility.children(mfid)
        assert facility.client.datasets.get(child).project_id == project
    assert broker.messages("mosaic_stitch") == broker.messages("mosaic_stitch-failed") == []


def test_killed_before_it_is_acknowledged(facility: Facility, broker: Broker) -> None:
    mfid = facility.measure("a.txt")
    broker.send(message(mfid))
    arguments = ["answer", str(facility.pipeline), "--once", "--queue", broker.url]
    environment = {**os.environ, **facility.environment}
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False)
    assert killed.returncode == -9
    assert len(facility.children(mfid)) == 1
    assert facility.answer("--queue", broker.url).returncode == 0  # it came again
    assert len(facility.children(mfid)) == 1
    assert facility.calls() == 1
    assert broker.messages("mosaic_stitch") == []


def test_two_workers(facility: Facility, broker: Broker) -> None:
    mfids = [facility.measure(f"{number}.txt") for number in range(4)]
    broker.send(*(message(mfid) for mfid in mfids * 2))
    done = []

    def work(folder: str) -> None:
        data = str(facility.folder / folder)
        done.append(facility.answer("--queue", broker.url, CRUCIBLE_LINEAGE_DATA=data))

    workers = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [ended.returncode for ended in done] == [0, 0], [ended.stderr for ended in done]
    assert [len(facility.children(mfid)) for mfid in mfids] == [1, 1, 1, 1]


def test_what_cannot_be_answered_is_parked(facility: Facility, broker: Broker) -> None:
    unknown = "0tr5k2ndm5zvd000nr21qakeh4"
    other, torn, held = (
        facility.measure("other.txt", measurement="spectrum"),
        facility.measure("torn.txt"),
        facility.measure("held.txt"),
    )
    assert facility.command("hold", held, "--why", "misplaced", **facility.environment).returncode == 0
    sent = [message(unknown), message(other), message(torn), message(held), "stitch it", message(torn, gain=2)]
    broker.send(*sent)
    done = facility.answer("--queue", broker.url)
    assert done.returncode == 1
    assert broker.messages("mosaic_stitch") == []
    parked = broker.messages("mosaic_stitch-failed")
    assert [text for text, _ in parked] == sent
    reasons = [headers["reason"] for _, headers in parked]
    parts = ("404", "not among those of input 'scan'", "do not overlap", "on hold", "no request", "gain: Extra inputs")
    for reason, part in zip(reasons, parts, strict=True):
        assert part in reason
    assert [headers["step"].partition("[")[0] for _, headers in parked] == ["", "", "stitch", "stitch", "", ""]
    assert facility.children(torn) == facility.children(held) == []
    everywhere = facility.command("status", "--all", **facility.environment)
    assert everywhere.returncode == 1
    for mfid in (unknown, other, torn, held):
        assert f"request mosaic_stitch of {mfid} failed" in everywhere.stdout
    # The command that is proposed answers it once the cause is gone.
    (facility.folder / "mosaic_steps.py").write_text(
        (facility.folder / "mosaic_steps.py").read_text().replace('"torn" in tiles', "not tiles")
    )
    proposed = next(line for line in everywhere.stdout.splitlines() if line.strip().startswith("echo") and torn in line)
    again = proposed.strip().replace("crucible-lineage", f"{sys.executable} -m crucible_lineage")
    environment = {**os.environ, **facility.environment}
    assert subprocess.run(["bash", "-c", again], env=environment, check=False).returncode == 0
    assert len(facility.children(torn)) == 1
    assert torn not in facility.command("status", "--all", **facility.environment).stdout


def test_a_file_that_is_not_ingested_yet(facility: Facility, broker: Broker) -> None:
    steps = facility.folder / "mosaic_steps.py"
    text = steps.read_text().replace("import step", "import Facts, step")
    text = text.replace("gain: float = 1.0,", "facts: Facts, gain: float = 1.0,")
    steps.write_text(text.replace('"tiles": len(tiles)', '"kelvin": facts.one("scan").metadata["kelvin"]'))
    path = facility.folder / "scan.json"
    path.write_text('{"kelvin": 300}')
    fields = {"dataset_name": "scan", "project_id": "proj1", "measurement": "tiles"}
    mfid = facility.client.datasets.create(fields, files=[path]).dsid
    broker.send(message(mfid))  # at once
    done = facility.answer("--queue", broker.url)
    assert done.returncode == 0, done.stderr
    (child,) = facility.children(mfid)
    found = facility.client.datasets.get(child, include_metadata=True).scientific_metadata
    assert found is not None
    assert found["kelvin"] == 300


def test_account_outside_of_the_project(facility: Facility, broker: Broker) -> None:
    mfid = facility.measure("a.txt")
    facility.client.datasets.update(mfid, public=True)
    key = facility.client.account.create("consumer").api_key
    broker.send(message(mfid))
    done = facility.answer("--queue", broker.url, CRUCIBLE_API_KEY=key)
    assert done.returncode == 1, done.stderr
    ((_, headers),) = broker.messages("mosaic_stitch-failed")
    assert "proj1" in headers["reason"]
    assert facility.children(mfid) == []


def test_queue_and_crucible_away(facility: Facility, broker: Broker) -> None:
    mfid = facility.measure("a.txt")
    nobody = facility.answer("--queue", "amqp://guest:guest@127.0.0.1:9/")
    assert nobody.returncode == 3
    assert "the queue at 127.0.0.1:9 does not answer" in nobody.stderr
    broker.send(message(mfid))
    away = facility.answer("--queue", broker.url, CRUCIBLE_API_URL="http://127.0.0.1:9/api/v1")
    assert away.returncode == 3, away.stderr
    assert broker.messages("mosaic_stitch-failed") == []
    assert facility.answer("--queue", broker.url).returncode == 0  # it went back into the queue
    assert len(facility.children(mfid)) == 1


def test_lines_of_json(facility: Facility) -> None:
    mfid = facility.measure("a.txt")
    given: tuple[dict[str, Any], ...] = ({"parameters": {"x.y": 2}}, {}, {"parameters": {"stitch.gain": 2}})
    asked = "".join(f"{message(mfid, **more)}\n" for more in given)
    command = [sys.executable, "-m", "crucible_lineage", "answer", str(facility.pipeline), "--queue", "-"]
    environment = {**os.environ, **facility.environment}
    done = subprocess.run(command, input=asked, capture_output=True, text=True, env=environment, check=False)
    failed, first, second = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert (failed["state"], first["state"], second["state"]) == ("failed", "complete", "complete")
    assert first["results"] != second["results"]
    assert "x" in failed["reason"]
    assert len(facility.children(mfid)) == 2
    told = facility.command("status", "--all", **facility.environment).stdout
    assert f"request mosaic_stitch of {mfid} failed" in told, "whatever was made with other parameters"


def test_calls_of_the_official_client_end_with_the_child(facility: Facility) -> None:
    mfid = facility.measure("a.txt")
    files = []
    for kind in KINDS:
        text = PIPELINE.replace("mosaic_stitch", kind).replace("pipeline: mosaic", f"pipeline: {kind}-requests")
        files.append(facility.folder / f"{kind}.yaml")
        files[-1].write_text(text)
    official = OfficialClient(facility.server.url, facility.server.api_key)
    asked = [
        official.datasets.request_mosaic_stitch(mfid),
        official.datasets.request_rga_analysis(mfid),
        official.datasets.request_insitu_aggregation(mfid),
        official.datasets.request_carrier_segmentation(mfid),
    ]
    assert [request["status"] for request in asked] == ["requested"] * 4
    done = facility.command("answer", *files, "--once", **facility.environment)
    assert done.returncode == 0, done.stderr
    ended = [facility.client.requests.get(request["id"]) for request in asked]
    assert [request.status for request in ended] == ["complete"] * 4
    assert {mfid for request in ended for mfid in request.results} == {*facility.children(mfid)}
    with pytest.raises(Exception, match="404"):
        official.datasets.request_mosaic_stitch("0tr5k2ndm5zvd000nr21qakeh4")
