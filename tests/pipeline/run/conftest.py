"""Members of a project, each with a machine of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.serving import start_server


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Session]]:
    """Three contributors to one project: Ada, Bob and Eve."""
    with ExitStack() as opened:
        server = opened.enter_context(start_server(tmp_path / "service"))
        admin = opened.enter_context(CrucibleClient(server.url, server.api_key))
        admin.projects.create(project_id="lab", organization="lab", project_lead="local")
        ask, sessions = admin._connection.call, []
        for name in ("ada", "bob", "eve"):
            made: dict[str, Any] = ask("POST", "/service_accounts", "make an account", body={"username": name})
            ask("POST", f"/projects/lab/users/{name}", "add a member", params={"role": "contributor"})
            settings = Settings(tmp_path / name, server.url, str(made["api_key"]))
            sessions.append(opened.enter_context(Session(settings)))
        yield sessions
