"""The container image as Apptainer, Shifter and Podman name it; others are said to be unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from crucible_lineage.provenance.environment import UNKNOWN, container_in

DIGEST = "9b1c" + "0" * 60


def test_outside_of_a_container_there_is_none(tmp_path: Path) -> None:
    assert container_in(tmp_path, {}) == ""


@pytest.mark.parametrize(
    ("environ", "image"),
    [
        ({"CRUCIBLE_LINEAGE_CONTAINER": "docker.io/lab/raman:2", "APPTAINER_CONTAINER": "/x"}, "docker.io/lab/raman:2"),
        ({"SHIFTER_IMAGEREQUEST": "docker:lab/raman:2", "SHIFTER_IMAGE": DIGEST}, f"lab/raman:2@sha256:{DIGEST}"),
        ({"SHIFTER_IMAGEREQUEST": "docker:lab/raman:2"}, "lab/raman:2"),
        ({"APPTAINER_CONTAINER": "/images/raman.sif"}, "/images/raman.sif"),
        ({"SINGULARITY_CONTAINER": "/images/raman.sif"}, "/images/raman.sif"),
        ({"container": "lxc"}, UNKNOWN),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, UNKNOWN),
    ],
)
def test_variables_name_the_image(tmp_path: Path, environ: dict[str, str], image: str) -> None:
    assert container_in(tmp_path, environ) == image


def test_files_of_docker_and_podman(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    assert container_in(tmp_path, {}) == UNKNOWN
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").write_text(f'name="raman"\nimage="quay.io/lab/raman:2"\nimageid="{DIGEST}"\n')
    assert container_in(tmp_path, {}) == f"quay.io/lab/raman:2@sha256:{DIGEST}"
