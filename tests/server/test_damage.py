"""Data that a failing disk changed in the database are refused in one line, never served."""

from __future__ import annotations

import base64
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.server.database import connect
from tests.serving import start_server

Answers = dict[str, tuple[int, Any]]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed folder with some of everything."""
    folder = tmp_path_factory.mktemp("intact")
    with start_server(folder / "crucible") as server, CrucibleClient(server.url, server.api_key) as client:
        lead = client.account.whoami().user_unique_id
        client.projects.create(project_id="raman", organization="lab", title="Raman laboratory", project_lead=lead)
        sample = client.samples.create({"sample_name": "silicon wafer", "project_id": "raman"}).unique_id
        parent = ""
        for number in range(12):
            metadata = {"laser": {"name": f"helium-neon-{number}", "power_mW": number}}
            new = {"dataset_name": f"spectrum-{number}", "project_id": "raman", "measurement": "raman-shift"}
            mfid = client.datasets.create(new, scientific_metadata=metadata).dsid
            client.datasets.add_keyword(mfid, f"Crystalline-{number % 3}")
            client.datasets.add_sample(mfid, sample)
            if parent:
                client.datasets.link_parent_child(parent, mfid, "is_derived_from")
            path = folder / f"counts-{number}.txt"
            path.write_text(f"{number}\n")
            client.files.upload(mfid, path)
            client.datasets.add_thumbnail(mfid, base64.b64decode(_PIXEL), name=f"picture-{number}")
            parent = mfid
    with closing(connect(folder / "crucible" / "crucible.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "crucible"


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "crucible"))


_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def answers(folder: Path) -> Answers:
    """Return the server's answers to reading nearly everything."""
    found: Answers = {}
    with start_server(folder) as server:
        key = (folder / "api_key").read_text().strip()
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as http:

            def get(path: str) -> Any:
                answer = http.get(path)
                found[path] = answer.status_code, answer.json()
                return answer.json()

            listed = get("/datasets?project_id=raman&include_metadata=true&include_links=true&include_owner=true")
            for path in ("/projects", "/samples", "/files", "/datasets?keyword=crystalline-1"):
                get(path)
            for mfid in [item["unique_id"] for item in listed.get("items", [])]:
                for more in ("?include_metadata=true", "/keywords", "/files", "/parents", "/thumbnails"):
                    get(f"/datasets/{mfid}{more}")
    return found


@pytest.fixture(scope="module")
def truth(intact: Path) -> Answers:
    return answers(intact)


def flip(folder: Path, position: int, bit: int) -> None:
    with (folder / "crucible.db").open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


def is_told(answer: tuple[int, Any]) -> bool:
    return (
        answer[0] == 500 and "damaged" in answer[1]["detail"] and "crucible-lineage data restore" in answer[1]["detail"]
    )


@pytest.mark.parametrize(
    ("text", "bit"),
    [
        *(
            (text, bit)
            for text in (b"spectrum-7", b"helium-neon-7", b"Crystalline-1", b"counts-7.txt")
            for bit in (0, 7)
        ),
        *((text, 0) for text in (b"picture-7", b"silicon wafer", b"Raman laboratory", b"raman-shift")),
    ],
)
def test_altered_text_is_refused_wherever_it_is_read(truth: Answers, copy: Path, text: bytes, bit: int) -> None:
    stored = (copy / "crucible.db").read_bytes()
    for position in [at for at in range(len(stored)) if stored.startswith(text, at)]:
        flip(copy, position + 2, bit)
    found = answers(copy)
    altered = [path for path, answer in found.items() if answer != truth[path]]
    assert altered
    assert all(is_told(found[path]) for path in altered), [found[path] for path in altered]


def test_the_database_of_another_version_is_refused(copy: Path) -> None:
    with closing(connect(copy / "crucible.db")) as db:
        db.execute("UPDATE setting SET value = '1' WHERE name = 'schema'")
    with pytest.raises(RuntimeError, match="another version of crucible-lineage made it; use that version"):
        start_server(copy)


def test_a_schema_that_was_altered_is_refused_at_the_start(copy: Path) -> None:
    stored = (copy / "crucible.db").read_bytes()
    flip(copy, stored.index(b"measurement TEXT") + 3, 1)
    with pytest.raises(RuntimeError, match="its schema is not what was written"):
        start_server(copy)
