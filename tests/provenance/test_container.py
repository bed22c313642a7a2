"""The container image as it is told within: by Apptainer, Shifter and Podman; of others that it is not known."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from crucible_lineage.provenance.environment import UNKNOWN, container_in

ID = "3f2a" + "0" * 60
DIGEST = "9b1c" + "0" * 60
IN_DOCKER = (
    f"728 712 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw\n"
    "740 712 0:50 / /dev/mqueue rw - mqueue mqueue rw\n"
)
IN_PODMAN = f"9 8 0:2 /containers/storage/overlay-containers/{ID}/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw\n"
V1 = f"12:memory:/docker/{ID}\n0::/\n"
PODS = f"0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-{ID}.scope\n"


def told(root: Path, environ: dict[str, str] | None = None, **files: str) -> str:
    for name, content in files.items():
        place = root / {"containerenv": "run/.containerenv", "dockerenv": ".dockerenv"}.get(name, f"proc/self/{name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return container_in(root, environ or {})


def test_outside_of_a_container_there_is_none(tmp_path: Path) -> None:
    assert (
        told(tmp_path, cgroup="0::/user.slice/user-1000.slice/session-3.scope\n", mountinfo="22 27 0:21 / /proc\n")
        == ""
    )
    assert told(tmp_path / "empty") == ""


def test_what_the_site_says_comes_first(tmp_path: Path) -> None:
    said = {"CRUCIBLE_LINEAGE_CONTAINER": f"docker.io/lab/raman:2@sha256:{DIGEST}", "APPTAINER_CONTAINER": "/x.sif"}
    assert told(tmp_path, said, dockerenv="", mountinfo=IN_DOCKER) == said["CRUCIBLE_LINEAGE_CONTAINER"]


def test_podman_says_it_in_a_file_if_it_may(tmp_path: Path) -> None:
    written = f'engine="podman-4.3.1"\nname="raman"\nimage="quay.io/lab/raman:2"\nimageid="{DIGEST}"\nrootless=1\n'
    assert told(tmp_path, containerenv=written) == f"quay.io/lab/raman:2@sha256:{DIGEST}"
    assert told(tmp_path, containerenv="", mountinfo=IN_PODMAN) == f"{UNKNOWN}Podman container 3f2a00000000"


def test_shifter_says_what_was_asked_for_and_its_digest(tmp_path: Path) -> None:
    asked = {"SHIFTER_IMAGEREQUEST": "docker:lab/raman:2", "SHIFTER_IMAGE": DIGEST}
    assert told(tmp_path, asked) == f"lab/raman:2@sha256:{DIGEST}"
    assert told(tmp_path, {"SHIFTER_IMAGEREQUEST": "docker:lab/raman:2"}) == "lab/raman:2"


def test_apptainer_names_a_file_whose_header_tells_it_from_others(tmp_path: Path) -> None:
    image = tmp_path / "images" / "raman.sif"
    image.parent.mkdir()
    header = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x00" + b"01\x00" + b"02\x00"
    image.write_bytes(header + bytes(range(16)) + b"more")
    named = {"APPTAINER_CONTAINER": "/images/raman.sif"}
    assert told(tmp_path, named) == f"/images/raman.sif@uuid:{bytes(range(16)).hex()}"
    image.write_bytes(b"no image")
    assert told(tmp_path, named) == "/images/raman.sif"
    assert told(tmp_path, {"SINGULARITY_CONTAINER": "/gone.sif"}) == "/gone.sif"


@pytest.mark.parametrize(
    ("environ", "files", "said"),
    [
        ({}, {"dockerenv": "", "mountinfo": IN_DOCKER}, "Docker container 3f2a00000000"),
        ({}, {"dockerenv": "", "cgroup": V1}, "Docker container 3f2a00000000"),
        ({}, {"dockerenv": ""}, "Docker"),
        ({}, {"mountinfo": IN_DOCKER}, "Docker container 3f2a00000000"),
        ({"container": "lxc"}, {}, "lxc container"),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "fits-7c9"},
            {"cgroup": PODS},
            "Kubernetes pod fits-7c9, container 3f2a00000000",
        ),
    ],
)
def test_of_others_it_is_said_that_the_image_is_not_known(
    tmp_path: Path, environ: dict[str, str], files: dict[str, str], said: str
) -> None:
    assert told(tmp_path, environ, **files) == UNKNOWN + said


def test_asking_takes_less_than_two_milliseconds() -> None:
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        container_in(Path("/"), os.environ)
        best = min(best, time.perf_counter() - began)
    assert best < 0.002
