"""Scenarios that our client and the official one run, and the resulting contents of their servers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.users import Official, Ours
from tests.contract.variants import VARIANTS, Door
from tests.serving import RunningServer, start_server

PROJECT = {"project_id": "raman-lab", "organization": "Molecular Foundry", "project_lead": "local"}
INSTRUMENT = {"instrument_id": "raman-1", "instrument_name": "Raman microscope", "location": "B67"}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100"
    "c9fe92ef0000000049454e44ae426082"
)
MFID = re.compile(r"(?<![0-9a-z])[0-9a-hjkmnp-tv-z]{26}(?![0-9a-z])")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00")


def everything(server: RunningServer) -> dict[str, Any]:
    """Return everything on the server, oldest first, by plain HTTP."""
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:

        def get(path: str, **params: Any) -> Any:
            return http.get(path, params=params).raise_for_status().json()

        shown = {"include_metadata": True, "include_links": True, "include_owner": True, "limit": 1000}
        oldest_first = {"sort": "created", "direction": "asc"}
        datasets = get("/datasets", **shown, **oldest_first)["items"]
        for dataset in datasets:
            for part in ("keywords", "thumbnails", "files"):
                dataset[part] = get(f"/datasets/{dataset['unique_id']}/{part}")
        return {
            "datasets": datasets,
            "samples": get("/samples", **shown, **oldest_first)["items"],
            "ingestion_requests": get("/ingestion_requests")["items"],
            "deletion_requests": get("/deletion_requests")["items"],
            "deletion_audit": get("/deletion_audit")["items"],
        }


def without_identity(value: Any, seen: dict[str, str]) -> Any:
    """Return `value` with MFIDs numbered in order and without the server's times."""
    if isinstance(value, dict):
        return {without_identity(key, seen): without_identity(inner, seen) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_identity(inner, seen) for inner in value]
    if isinstance(value, str):
        value = MFID.sub(lambda found: seen.setdefault(found[0], f"<mfid {len(seen) + 1}>"), value)
        return TIME.sub("<time>", value)
    return value


Scenario = Callable[[Any], Any]


@pytest.fixture
def outcomes(tmp_path: Path) -> Callable[[Scenario], list[Any]]:
    """Run a scenario by each client on its own server; returns the answers and the server's contents."""

    def run(scenario: Scenario) -> list[Any]:
        found = []
        for kind in (Ours, Official):
            with start_server(tmp_path / kind.__name__) as server:
                user = kind(server.url, server.api_key)
                with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:
                    http.post("/projects", json=PROJECT).raise_for_status()
                    http.post("/instruments", json=INSTRUMENT).raise_for_status()
                answers = scenario(user)
                user.close()
                found.append(without_identity([answers, everything(server)], {}))
        return found

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG of one pixel."""
    path = tmp_path / "preview.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Start the variant of this name before an embedded Crucible, which has a project `lab`."""
    with start_server(tmp_path / "elsewhere") as server, contextlib.ExitStack() as stack:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:
            http.post("/projects", json={**PROJECT, "project_id": "lab"}).raise_for_status()

        def open_door(variant: str) -> Any:
            door = Door(server.url, server.api_key, VARIANTS[variant])
            stack.callback(door.close)
            return door

        yield open_door
