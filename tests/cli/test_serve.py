"""`serve`: sources of the key, and what keeps it from starting."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

KEY = "a-key-of-more-than-twenty-characters"


@pytest.fixture
def serving(tmp_path: Path, begin: Any) -> Iterator[Callable[..., tuple[str, Callable[[], str]]]]:
    """Start `serve`; return its address and a function that ends it and returns its stderr."""
    processes: list[Any] = []

    def start(*arguments: object, **environment: str) -> tuple[str, Callable[[], str]]:
        process = begin(
            "serve", "--json", "--data", tmp_path, *arguments, stderr=subprocess.PIPE, environment=environment
        )
        processes.append(process)
        line = process.stdout.readline()

        is_refused = line.strip() == "{"  # an error is an object of several lines

        def end() -> str:
            if not is_refused:
                process.terminate()
            return "".join(process.communicate(timeout=30))

        return (json.loads(line)["url"] if line and not is_refused else ""), end

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
    ("content", "expected"), [("", "visible ASCII"), ("two words", "blanks"), ("schlüssel", "ASCII")]
)
def test_a_key_that_cannot_be_sent_is_refused(serving: Any, tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="latin-1")
    url, end = serving("--api-key-file", file)
    output = end()
    assert (url, expected in output, "Traceback" in output) == ("", True, False)
    assert not content or content not in output


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ("damaged", "crucible.db cannot be used: file is not a database"),
        ("port", "could not listen on 127.0.0.1"),
        pytest.param("folder", "cannot be created", marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc")),
    ],
)
def test_a_failure_to_start_is_reported_in_one_line(serving: Any, tmp_path: Path, trouble: str, expected: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        arguments: dict[str, list[object]] = {
            "port": ["--port", listener.getsockname()[1]],
            "folder": ["--data", "/proc/nowhere"],
        }
        if trouble == "damaged":
            (tmp_path / "crucible").mkdir()
            (tmp_path / "crucible" / "crucible.db").write_bytes(b"no database" * 500)
        url, end = serving(*arguments.get(trouble, []))
        output = end()
    assert (url, "Traceback" in output) == ("", False)
    assert expected in output
    assert len([line for line in output.splitlines() if line.startswith("error: ")]) == 1
