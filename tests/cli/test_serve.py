"""`serve`: where the key may come from, and what it warns of."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client import CrucibleClient

KEY = "a-key-of-more-than-twenty-characters"


@pytest.fixture
def serving(tmp_path: Path, begin: Any) -> Iterator[Callable[..., tuple[str, Callable[[], str]]]]:
    """Starts `serve`; gives its address and a function that ends it and gives what it said on stderr."""
    processes: list[Any] = []

    def start(*arguments: object, **environment: str) -> tuple[str, Callable[[], str]]:
        process = begin(
            "serve", "--json", "--data", tmp_path, *arguments, stderr=subprocess.PIPE, environment=environment
        )
        processes.append(process)
        line = process.stdout.readline()

        refused = line.strip() == "{"  # an error is an object of several lines

        def end() -> str:
            if not refused:
                process.terminate()
            return "".join(process.communicate(timeout=30))

        return (json.loads(line)["url"] if line and not refused else ""), end

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def accepted(url: str, key: str) -> bool:
    return httpx.get(f"{url}/account", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_the_key_comes_from_a_file_or_the_environment(serving: Any, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}-filed\n")
    url, end = serving("--api-key-file", file, CRUCIBLE_LINEAGE_SERVE_KEY="not-this-one")
    assert (accepted(url, f"{KEY}-filed"), accepted(url, "not-this-one"), end()) == (True, False, "")
    url, end = serving(CRUCIBLE_LINEAGE_SERVE_KEY=KEY)
    assert (accepted(url, KEY), end()) == (True, "")


@pytest.mark.parametrize(
    ("content", "told"), [("", "visible ASCII"), ("two words", "blanks"), ("schlüssel", "ASCII"), ("ÿþ", "ASCII")]
)
def test_a_key_that_cannot_be_sent_is_refused(serving: Any, tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="latin-1")
    url, end = serving("--api-key-file", file)
    said = end()
    assert (url, told in said, "Traceback" in said) == ("", True, False)
    assert not content or content not in said


def test_two_keys_are_one_too_many(serving: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    url, end = serving("--api-key-file", tmp_path / "key", "--api-key", "another")
    assert (url, "give one of them" in end()) == ("", True)


@pytest.mark.parametrize(
    ("host", "key", "told"),
    [
        ("127.0.0.1", "short", []),
        ("localhost", "short", []),
        ("0.0.0.0", KEY, ["plain text"]),
        ("0.0.0.0", "short", ["plain text", "5 characters"]),
    ],
)
def test_it_warns_of_keys_that_others_can_read_or_guess(serving: Any, host: str, key: str, told: list[str]) -> None:
    url, end = serving("--host", host, "--api-key", key)
    assert url
    warnings = [line for line in end().splitlines() if line.startswith("warning: ")]
    assert len(warnings) == len(told)
    assert all(word in line for word, line in zip(told, warnings, strict=True))


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("damaged", "crucible.db cannot be used: file is not a database"),
        ("port", "could not listen on 127.0.0.1"),
        ("no port", "99999 is not in the range 0<=x<=65535"),
        ("host", "could not listen on 300.1.1.1"),
        ("certificate", "cannot be used"),
        ("key alone", "--certfile"),
        pytest.param("folder", "cannot be created", marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc")),
    ],
)
def test_what_keeps_it_from_starting_is_told_in_a_line(serving: Any, tmp_path: Path, trouble: str, told: str) -> None:
    (tmp_path / "pem").write_text("no certificate")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        arguments: dict[str, list[object]] = {
            "port": ["--port", taken.getsockname()[1]],
            "no port": ["--port", 99999],
            "host": ["--host", "300.1.1.1"],
            "certificate": ["--certfile", tmp_path / "pem", "--keyfile", tmp_path / "pem"],
            "key alone": ["--keyfile", tmp_path / "pem"],
            "folder": ["--data", "/proc/nowhere"],
        }
        if trouble == "damaged":
            (tmp_path / "crucible").mkdir()
            (tmp_path / "crucible" / "crucible.db").write_bytes(b"no database" * 500)
        url, end = serving(*arguments.get(trouble, []))
        said = end()
    assert (url, "Traceback" in said) == ("", False)
    assert told in said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1


def test_ingestion_may_write_back_what_it_picked_up(serving: Any, tmp_path: Path) -> None:
    url, end = serving("--ingestion", "writes-back", "--ingestion-delays", "0", "0.4", "--api-key", KEY)
    path = tmp_path / "scan.csv"
    path.write_text("x,y\n1,2\n2,3\n")
    with CrucibleClient(url, KEY) as client:
        client.projects.create(project_id="lab", organization="x", project_lead="local")
        mfid = client.datasets.create({"dataset_name": "scan", "project_id": "lab"}).dsid
        client.metadata.create(mfid, {"status": "begun"})
        request = client.ingestions.request(client.files.upload(mfid, path).file.mfid)
        while client.ingestions.get(request.id).status == "requested":
            time.sleep(0.01)
        time.sleep(0.05)
        client.metadata.merge(mfid, {"status": "done"})
        client.ingestions.wait(request.id)
        assert (client.metadata.get(mfid) or {})["status"] == "begun"
    assert end() == ""
