"""What deployments/ holds can be started: the image, the services of Compose, the units of systemd."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import get_current_settings
from sqlalchemy.engine import make_url

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_each_service_waits_until_those_that_it_needs_are_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert SERVICES[needed]["healthcheck"]["test"], needed
    assert SERVICES["worker"]["depends_on"].keys() == {"prefect", "crucible"}


def test_all_state_lies_in_volumes_and_every_port_on_the_machine_itself() -> None:
    for name, service in SERVICES.items():
        volumes = [volume.partition(":") for volume in service["volumes"]]
        assert {volume for volume, _, _ in volumes} <= COMPOSE["volumes"].keys(), name
        home = service["environment"].get("PREFECT_HOME")
        assert home is None or any(home.startswith(place) for _, _, place in volumes), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_a_password_of_any_signs_reaches_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    password = "a@b:/c#%d"
    for name, value in SERVICES["prefect"]["environment"].items():
        monkeypatch.setenv(name, str(value).replace("${POSTGRES_PASSWORD:?choose one}", password))
    url = type(get_current_settings())().server.database.connection_url
    assert url is not None
    assert make_url(url.get_secret_value()).password == password


def test_the_image_is_built_from_what_the_repository_has_and_little_is_sent() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+) ", (DEPLOYMENTS / "Dockerfile").read_text(encoding="utf-8"), re.M)
    assert all((ROOT / source).exists() for source in copied)
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    assert all((ROOT / name).exists() for name in kept)
    sent = [path for name in kept for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_file()]
    sent = [path for path in sent if not fnmatch.fnmatch(str(path), "*__pycache__*")]
    assert sum(path.stat().st_size for path in sent) < 20e6
    assert {"requirements/image.txt", "pyproject.toml", "README.md"} <= set(kept)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("unit", sorted((DEPLOYMENTS / "systemd").glob("*.service")), ids=lambda unit: unit.stem)
def test_a_unit_is_taken_by_systemd(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    copy = tmp_path / unit.name
    copy.write_text(
        re.sub(r"/opt/crucible-lineage/bin/\S+", sys.executable, text).replace("User=crucible", "User=root")
    )
    checked = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
