"""Servers as processes see them: started, shared, closed, killed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import httpx
import pytest

from crucible_lineage.ids import new_mfid
from crucible_lineage.server.database import instance_id
from tests.serving import start_server

SERVE = """
import sys
from crucible_lineage.server.running import serve
serve(sys.argv[1], on_ready=lambda url: print(url, flush=True))
"""
INSTANCE_ID = """
import sys
from crucible_lineage.server.database import instance_id
print(instance_id(sys.argv[1]), "starlette" in sys.modules)
"""


@pytest.fixture
def serving(tmp_path):
    """Start `serve` over a data folder in a separate process; returns the process and its address."""
    processes: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(tmp_path / "data")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _client(url: str, data_dir: Path) -> httpx.Client:
    key = (data_dir / "api_key").read_text().strip()
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def test_instance_id_costs_no_server_and_lasts(tmp_path):
    run = [sys.executable, "-c", INSTANCE_ID, str(tmp_path)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == ["None", "False"]
    start_server(tmp_path).close()
    first = instance_id(tmp_path)
    start_server(tmp_path).close()
    assert instance_id(tmp_path) == first
    assert first


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX matter")
def test_local_key_is_for_its_owner_only_and_stays(tmp_path):
    with start_server(tmp_path) as first, start_server(tmp_path) as second:
        assert first.api_key == second.api_key
        assert first.api_key not in repr(first)
    assert stat.S_IMODE((tmp_path / "api_key").stat().st_mode) == 0o600
    with sqlite3.connect(tmp_path / "crucible.db") as db:
        stored = {row[0] for row in db.execute("SELECT hash FROM api_key")}
    db.close()
    assert stored == {hashlib.sha256(first.api_key.encode()).hexdigest()}


def test_a_port_in_use_is_reported(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RuntimeError, match="could not listen"):
            start_server(tmp_path, port=taken.getsockname()[1])


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signal")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_at_a_signal_without_a_trace(serving, sign):
    process, url = serving()
    assert httpx.get(url + "/health/ready").json()["status"] == "ok"
    process.send_signal(sign)
    _, errors = process.communicate(timeout=20)
    assert errors == ""
    assert process.returncode in (0, -sign)


def test_servers_over_one_folder_take_parallel_writers(tmp_path):
    with start_server(tmp_path) as one, start_server(tmp_path) as two:
        parent = new_mfid()

        def work(number: int) -> str:
            with _client((one, two)[number % 2].url, tmp_path) as api:
                mfid = new_mfid()
                for answer in (
                    api.post("/datasets", json={"unique_id": mfid, "dataset_name": f"{number}"}),
                    api.patch(f"/resources/{parent}/metadata", json={f"k{number}": number}),
                    api.post(f"/datasets/{mfid}/keywords", params={"keyword": "parallel"}),
                    api.post(f"/datasets/{parent}/children/{mfid}"),
                ):
                    assert answer.status_code == 201 or answer.status_code == 200, answer.text
                return mfid

        with _client(one.url, tmp_path) as api:
            assert api.post("/datasets", json={"unique_id": parent}).status_code == 201
            with ThreadPoolExecutor(8) as pool:
                made = set(pool.map(work, range(40)))
            children = api.get(f"/datasets/{parent}/children").json()
            assert {child["unique_id"] for child in children["items"]} == made
            document = api.get(f"/resources/{parent}/metadata").json()["scientific_metadata"]
            assert len(document) == 40


def test_one_of_many_racers_creates_the_dataset(tmp_path):
    with start_server(tmp_path) as one, start_server(tmp_path) as two:
        mfid = new_mfid()

        def race(number: int) -> int:
            with _client((one, two)[number % 2].url, tmp_path) as api:
                return api.post("/datasets", json={"unique_id": mfid}).status_code

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(race, range(8))) == [201] + [409] * 7


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_in_mid_upload_leaves_no_record_without_its_bytes(serving, tmp_path):
    process, url = serving()
    content = os.urandom(3 << 20)
    announced = {"filename": "map.bin", "size": len(content), "sha256_hash": hashlib.sha256(content).hexdigest()}
    with _client(url, tmp_path / "data") as api:
        mfid = api.post("/datasets", json={"dataset_name": "killed"}).json()["unique_id"]
        session = api.post(f"/datasets/{mfid}/upload/initiate", json=announced).json()

        def halfway():
            yield content[: 2 << 20]
            process.kill()
            process.wait()
            yield content[2 << 20 :]

        chunk_range = {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}
        with pytest.raises(httpx.TransportError):
            httpx.put(session["resumable_uri"], content=halfway(), headers=chunk_range)
    _, url = serving()
    with _client(url, tmp_path / "data") as api:
        assert api.get(f"/datasets/{mfid}/files").json() == []
        again = api.post(f"/datasets/{mfid}/upload/initiate", json=announced).json()
        assert again["upload_id"] == session["upload_id"]
        held = httpx.put(again["resumable_uri"], headers={"Content-Range": f"bytes */{len(content)}"})
        start = int(held.headers["Range"].rsplit("-", 1)[1]) + 1 if "Range" in held.headers else 0
        chunk_range = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        assert httpx.put(again["resumable_uri"], content=content[start:], headers=chunk_range).status_code == 200
        complete = {"upload_id": again["upload_id"], "sha256_hash": announced["sha256_hash"]}
        file = api.post(f"/datasets/{mfid}/upload/complete", json=complete).json()
        assert httpx.get(api.get(f"/files/{file['mfid']}/download_link").json()["url"]).content == content


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_kill_among_many_uploads_leaves_only_whole_files(serving, tmp_path):
    process, url = serving()
    started = threading.Event()

    def upload_until_it_dies(number: int) -> None:
        with _client(url, tmp_path / "data") as api, contextlib.suppress(httpx.TransportError):
            mfid = api.post("/datasets", json={"dataset_name": f"{number}"}).json()["unique_id"]
            for count in range(10_000):
                _upload(api, mfid, f"{count}.bin", os.urandom(5000))
                started.set()

    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(upload_until_it_dies, number) for number in range(3)]
        assert started.wait(20)
        process.kill()
        for one in work:
            one.result()
    _, url = serving()
    with _client(url, tmp_path / "data") as api:
        files = api.get("/files").json()["items"]
        assert files
        for file in files:
            content = api.get(api.get(f"/files/{file['mfid']}/download_link").json()["url"]).content
            assert hashlib.sha256(content).hexdigest() == file["sha256_hash"]


def _upload(api: httpx.Client, mfid: str, filename: str, content: bytes) -> None:
    """Upload one file by the signed protocol."""
    announced = {"filename": filename, "size": len(content), "sha256_hash": hashlib.sha256(content).hexdigest()}
    crc32c = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    path = f"/datasets/{mfid}/upload/multipart"
    upload_id = api.post(f"{path}/initiate", json=announced).json()["upload_id"]
    parts = {"parts": [{"part_number": 1, "crc32c": crc32c}]}
    signed = api.post(f"{path}/{upload_id}/parts", json=parts).json()["parts"][0]
    api.put(signed["url"], content=content).raise_for_status()
    complete = {"upload_id": upload_id, "sha256_hash": announced["sha256_hash"], "crc32c": crc32c}
    api.post(f"{path}/complete", json=complete).raise_for_status()
