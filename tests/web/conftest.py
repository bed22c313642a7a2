"""The pages of `serve` in a separate process, with data of two projects, an owner and a guest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client import CrucibleClient

EVIL = "<script>alert(1)</script>"


@dataclass
class Site:
    """A server, its owner's client, a guest's key, and the MFIDs of its datasets."""

    url: str
    key: str
    client: CrucibleClient
    guest_key: str = ""
    mfids: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, path: str, **body: Any) -> Any:
        """Send a request that the client does not offer, as the owner; return the answer."""
        answer = httpx.request(
            method, self.client.api_url + path, json=body, headers={"Authorization": f"Bearer {self.key}"}
        )
        assert answer.is_success, answer.text
        return answer.json()

    @contextmanager
    def browser(self, key: str | None = None) -> Iterator[httpx.Client]:
        """Sign in with the owner's key or another one."""
        with httpx.Client(base_url=self.url, timeout=30, verify=False) as browser:  # nothing here is over TLS
            signed_in = browser.post("/sign-in", data={"key": key or self.key}, headers={"Origin": self.url})
            assert signed_in.status_code == 303, signed_in.text
            yield browser


@contextmanager
def served(begin: Any, folder: Path, *options: Any) -> Iterator[tuple[dict[str, str], str]]:
    """Run `serve` for a data folder until the block ends; yield its output and the key of its owner."""
    process = begin("serve", "--data", folder, "--json", *options)
    try:
        printed = json.loads(process.stdout.readline())
        yield printed, (folder / "crucible" / "api_key").read_text().strip()
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="session")
def serving(begin: Any) -> Callable[..., AbstractContextManager[tuple[dict[str, str], str]]]:
    return partial(served, begin)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, begin: Any) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("web")
    with served(begin, folder) as (printed, key), CrucibleClient(printed["url"], key) as client:
        yield filled(Site(printed["pages"].rstrip("/"), key, client), folder)


def filled(site: Site, folder: Path) -> Site:
    """Fill the site with an open and a closed project, a lineage across both, and names full of markup."""
    site.guest_key = site.request("POST", "/service_accounts", username="guest")["api_key"]
    lead = site.client.account.whoami().user_unique_id
    for project in ("open", "closed"):
        site.client.projects.create(
            project_id=f"{project}-lab", organization="test", title=f"{project} lab", project_lead=lead
        )

    def dataset(name: str, project: str, *, public: bool, used: tuple[str, ...] = (), **fields: Any) -> str:
        metadata = fields.pop("metadata", {}) | ({"crucible_lineage": record(used)} if used else {})
        made = site.client.datasets.create(
            {"dataset_name": name, "project_id": f"{project}-lab", "public": public, **fields},
            scientific_metadata=metadata,
        )
        for parent in used:
            site.client.datasets.link_parent_child(parent, made.dsid, "is_derived_from")
        return made.dsid

    secret = dataset("secret raw", "closed", public=False)
    raw = dataset("plain raw", "open", public=True, measurement="XRD", data_format="h5")
    child = dataset("child of both", "open", public=True, used=(secret, raw), measurement="XRD")
    evil = dataset(
        EVIL, "open", public=True, measurement="SEM", metadata={EVIL: EVIL, "deep": {"list": [EVIL]}, "nothing": None}
    )
    site.client.datasets.add_keyword(evil, EVIL)
    file = folder / "counts.txt"
    file.write_text("1 2 3\n")
    site.client.files.upload(evil, file, filename="<img src=x onerror=alert(1)>.txt".replace("/", ""))
    about = site.client.samples.create({"sample_name": "wafer 7", "project_id": "open-lab"}).unique_id
    site.client.datasets.add_sample(raw, about)
    deleted = dataset("to be deleted", "open", public=True)
    site.client.datasets.delete(deleted, "a twin")
    site.client.projects.create(project_id="many-lab", organization="test", project_lead=lead)
    for number in range(60):
        dataset(f"one of many {number:02d}", "many", public=False)
    site.mfids |= {"deleted": deleted, "sample": about}
    site.mfids |= {"secret": secret, "raw": raw, "child": child, "evil": evil}
    return site


def record(used: tuple[str, ...]) -> dict[str, Any]:
    """Return the provenance of a step's output."""
    sha256 = "ab" * 32
    return {
        "schema": "crucible-lineage/provenance/1",
        "status": "complete",
        "pipeline": {"name": "counting", "hash": "cd" * 32},
        "step": "add",
        "output": "out",
        "attempt": 0,
        "recipe": {
            "kind": "step",
            "version": 2,
            "project": "open-lab",
            "step": "add",
            "output": "out",
            "code": sha256,
            "params": {"factor": 3},
            "inputs": {"parts": [{"origin": mfid, "files": {f"of-{mfid}.txt": sha256}} for mfid in used]},
        },
        "used": [
            {"role": "parts", "mfid": mfid, "files": [{"name": f"of-{mfid}.txt", "sha256": sha256, "size": 3}]}
            for mfid in used
        ],
        "generated": [],
        "activity": {
            "step": "add",
            "function": "lab:add",
            "code": {"fingerprint": sha256, "source": "def add(): ...", "not_covered": [], "git": None},
            "started": "2026-05-01T12:00:00+00:00",
            "ended": "2026-05-01T12:01:05+00:00",
            "run": {"engine": "local", "run_id": "run-1"},
        },
        "agent": {"unique_id": "a", "username": "b", "is_service_account": False, "local_user": "c"},
        "software": {"python": "3.11.7", "platform": "Linux", "packages": {"numpy": "2.0"}},
        "supersedes": None,
    }


@pytest.fixture
def record_of() -> Callable[[tuple[str, ...]], dict[str, Any]]:
    """Return a function that makes the provenance of a step's output."""
    return record


@pytest.fixture
def owner(site: Site) -> Iterator[httpx.Client]:
    with site.browser() as browser:
        yield browser


@pytest.fixture
def guest(site: Site) -> Iterator[httpx.Client]:
    with site.browser(site.guest_key) as browser:
        yield browser
