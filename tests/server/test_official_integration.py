"""The official client's own integration tests, unmodified, against this server over TLS: all pass, none is skipped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import trustme

RELEASE = "3.3.0"
TESTS = 67
SEED = """
from crucible import CrucibleClient
from crucible.models import Dataset, Sample
client = CrucibleClient()
client.projects.create({"project_id": "crucible-test", "organization": "Molecular Foundry", "project_lead": "local"})
client.datasets.create(Dataset(dataset_name="seed", project_id="crucible-test"))
client.samples.create(Sample(sample_name="seed", project_id="crucible-test"))
client.instruments.create({"instrument_id": "sem-1", "instrument_name": "Microscope", "location": "B67"})
"""


@pytest.fixture(scope="session")
def official_tests(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Download the client's source archive once and return the folder of its integration tests."""
    cache = pytestconfig.cache.mkdir("nano-crucible") if hasattr(pytestconfig, "cache") else None
    folder = Path(cache) if cache else tmp_path_factory.mktemp("nano-crucible")
    archive = folder / f"nano_crucible-{RELEASE}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
        options = ["--no-binary", "nano-crucible", f"nano-crucible=={RELEASE}", "--dest", str(folder)]
        subprocess.run([*pip, *options], check=True, timeout=120)
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as source:
        source.extractall(unpacked, filter="data")
    return unpacked / f"nano_crucible-{RELEASE}" / "tests" / "integration"


def test_official_integration_tests_all_pass_and_none_is_skipped(official_tests: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    serve = [
        sys.executable,
        "-m",
        "crucible_lineage",
        "serve",
        "--json",
        "--api-key",
        "the-key",
        "--data",
        str(tmp_path),
    ]
    tls = ["--certfile", str(tmp_path / "server.pem"), "--keyfile", str(tmp_path / "server.pem")]
    with subprocess.Popen([*serve, *tls], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            environment = os.environ | {
                "CRUCIBLE_API_URL": json.loads(server.stdout.readline())["url"],
                "CRUCIBLE_API_KEY": "the-key",
                "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem"),
                "HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path),
            }
            subprocess.run([sys.executable, "-c", SEED], env=environment, check=True, timeout=60)
            run = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", str(official_tests)],
                env=environment, cwd=official_tests, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
        finally:
            server.terminate()
    assert re.search(rf"^{TESTS} passed(, \d+ warnings?)? in ", run.stdout, re.MULTILINE), (
        run.stdout[-5000:] + run.stderr
    )
