"""The stories in `stories/`: requests to a new server, each with its whole answer below. GOLDEN=write stores new ones.

    > CALLER METHOD ADDRESS ["BYTES" or JSON] [| PATH, ...] [-> NAME=PATH, ...]

shows of the answer what lies at these paths, by default all but nulls, and gives names to values, which `{NAME}` stands
for from there on, also as a CALLER, whose key it then is. Times, revisions and hashes get numbers as they appear.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import httpx
import pytest

from tests.serving import start_server

REQUEST = re.compile(
    r'> (\S+) ([A-Z]+) ((?:\[.*?\])*\S+)( ".*?"(?= \||$)| [{\[].*?(?= \| | -> |$))?(?: \| (.*?))?(?: -> (.*))?'
)
NUMBERED = (
    ("time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"),
    ("revision", r"[0-9a-f]{32}:[0-9a-f]{16}(?=:\d)"),
    ("sha", r"\b[0-9a-f]{64}\b|(?<=\")[0-9a-f]{16}(?=-\d+\\)"),
    ("id", r"\b[0-9a-f]{32}\b"),
    ("mfid", r"\b[0-9a-hjkmnp-tv-z]{26}\b"),
)


def at(value: Any, path: str) -> Any:
    """Return what lies at a path such as `items.*.name`."""
    for number, step in enumerate(steps := path.split(".")):
        if step == "*":
            return [at(item, ".".join(steps[number + 1 :])) for item in value]
        value = value[int(step)] if isinstance(value, list) else value.get(step) if step else value
    return value


def plain(value: Any) -> Any:
    """Return the value without what is null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, list) else value


class Story:
    """A server, and the names of what it has answered."""

    def __init__(self, http: httpx.Client, admin: str) -> None:
        self.http = http
        self.names = {"admin": admin}
        self.seen: dict[str, dict[str, int]] = defaultdict(dict)

    def named(self, text: str) -> str:
        """Return the text with values in place of their names, and digests of bytes in place of {sha256:BYTES}."""
        text = re.sub(r"{sha256:(.*?)}", lambda found: hashlib.sha256(found[1].encode()).hexdigest(), text)
        text = re.sub(r"{base64:(.*?)}", lambda found: base64.b64encode(found[1].encode()).decode(), text)
        text = re.sub(r"{crc:(.*?)}", lambda found: crc(found[1].encode()), text)
        return re.sub(r"{(\w+)}", lambda found: self.names.get(found[1], found[0]), text)

    def shown(self, text: str) -> str:
        """Return the text with names in place of their values, and numbers in place of what varies."""
        text = text.replace(str(self.http.base_url).rstrip("/"), "")
        text = re.sub(r"expires=(\d+)", lambda found: f"expires=+{(int(found[1]) - time.time()) / 3600:.0f}h", text)
        text = re.sub(r"signature=\w+", "signature=...", text)
        for name, value in self.names.items():
            text = text.replace(value, f"{{{name}}}")
        for kind, pattern in NUMBERED:
            text = re.sub(pattern, partial(self.number, kind), text)
        return text

    def number(self, kind: str, found: re.Match[str]) -> str:
        return f"<{kind} {self.seen[kind].setdefault(found[0], len(self.seen[kind]) + 1)}>"

    def ask(self, caller: str, method: str, address: str, body: str, shown: str, names: str) -> Iterator[str]:
        content = self.named(body.strip())
        headers = {} if caller == "-" else {"Authorization": f"Bearer {self.names.get(caller, caller)}"}
        while extra := re.match(r"\[([\w-]+): ?(.*?)\](.*)", address):
            headers[extra[1]], address = self.named(extra[2]), extra[3]
        raw = content[1:-1].encode() if content.startswith('"') else content.encode()
        answer = self.http.request(method, self.named(address), content=raw, headers=headers)
        try:
            value = answer.json()
        except ValueError:
            value = answer.text
        for name, path in (each.split("=") for each in names.split(", ") if each):
            self.names[name] = str(at(value, path))
        told = [at(value, path) for path in shown.split(", ")] if shown and answer.is_success else [plain(value)]
        kept = ("crucible-revision", "crucible-statements", "range", "retry-after", "content-disposition")
        more = "".join(f" [{name}: {answer.headers[name]}]" for name in kept if name in answer.headers)
        text = ", ".join(json.dumps(each, ensure_ascii=False) for each in told)
        yield self.shown(f"{answer.status_code}{more} {text}")


def crc(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("story", sorted(Path(__file__).with_name("stories").glob("*.txt")), ids=lambda path: path.stem)
def test_it_is_answered_as_it_was(story: Path, tmp_path: Path) -> None:
    text, told = story.read_text(encoding="utf-8"), list[str]()
    with start_server(tmp_path) as server, httpx.Client(base_url=server.url) as http:
        telling = Story(http, server.api_key)
        for line in text.splitlines():
            if line.startswith("> "):
                request = REQUEST.fullmatch(line)
                assert request, line
                told += [line, *telling.ask(*(part or "" for part in request.groups()))]
            elif not re.match(r"\d{3} ", line):
                told.append(line)
    found = "\n".join(told) + "\n"
    if os.environ.get("GOLDEN") == "write":
        story.write_text(found, encoding="utf-8")
    assert found == text
