"""The first visit of a project: its page says that datasets are being read until they are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from crucible_lineage.errors import NotFoundError
from crucible_lineage.web import reader as reading
from crucible_lineage.web.reader import BackgroundTasks


@pytest.fixture
def reader() -> Any:
    with ThreadPoolExecutor(1) as pool:
        yield SimpleNamespace(name="somebody", sign_in=SimpleNamespace(copies=BackgroundTasks(pool)))


def test_a_page_reloads_until_the_datasets_are_read(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = threading.Event()
    monkeypatch.setattr(reading, "_copy", lambda sign_in, project: read.wait(60) and None)
    page = reading.still_reading(reader, None)
    assert page is not None
    assert "being read for the first time" in bytes(page.body).decode()
    assert page.headers["refresh"] == "2"
    read.set()
    reader.sign_in.copies.of("", lambda: None).result.result(60)
    assert reading.still_reading(reader, None) is None


def test_an_unreadable_project_does_not_keep_the_page_waiting(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(sign_in: Any, project: str) -> None:
        raise NotFoundError("there is no such project", status=404)

    monkeypatch.setattr(reading, "_copy", gone)
    assert reading.still_reading(reader, SimpleNamespace(project_id="lab", title="")) is None  # type: ignore[arg-type]
