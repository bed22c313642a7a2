"""The container image that this process runs in, as far as it can be known from within.

Apptainer, Shifter and privileged Podman say it. Docker, Kubernetes and other Podman do not: there a variable of ours
may, which whoever starts the container sets, and else the record says that the image is not known.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["CONTAINER_VARIABLE", "UNKNOWN", "container", "container_in"]

CONTAINER_VARIABLE = "CRUCIBLE_LINEAGE_CONTAINER"
UNKNOWN = "unknown: "  # begins what is known of a container whose image is not
_ID = re.compile(
    r"/(docker|containers|overlay-containers|libpod|cri-containerd|crio)[/:-](?:containers/)?([0-9a-f]{64})"
)
_KINDS = {"docker": "Docker", "libpod": "Podman", "overlay-containers": "Podman", "podman": "Podman"}
_SIF_MAGIC, _SIF_ID = b"SIF_MAGIC", 48  # where the header of an image of Apptainer has its UUID


@functools.cache
def container() -> str:
    """Return the image as `registry/name:tag@sha256:...`, or what else names it; empty outside of a container.

    What begins with `UNKNOWN` says in which container it is, whose image is not known.
    """
    return container_in(Path("/"), os.environ)


def container_in(root: Path, environ: Mapping[str, str]) -> str:
    """Return the same for a file system and an environment."""
    if named := environ.get(CONTAINER_VARIABLE):
        return named
    if image := environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER"):
        return f"{image}{_sif_id(root / image.lstrip('/'))}"
    if asked := environ.get("SHIFTER_IMAGEREQUEST"):
        digest = environ.get("SHIFTER_IMAGE", "").removeprefix("sha256:")
        return asked.removeprefix("docker:") + (f"@sha256:{digest}" if re.fullmatch("[0-9a-f]{64}", digest) else "")
    told = dict(line.partition("=")[::2] for line in _text(root / "run/.containerenv").splitlines())
    told = {name: value.strip('"') for name, value in told.items()}
    if image := "@sha256:".join(filter(None, (told.get("image"), told.get("imageid", "").removeprefix("sha256:")))):
        return image
    return _unknown(root, environ)


def _unknown(root: Path, environ: Mapping[str, str]) -> str:
    """Return in which container this is; empty if nothing says that it is in one."""
    found = _ID.search(_text(root / "proc/self/cgroup")) or _ID.search(_text(root / "proc/self/mountinfo"))
    named = f" container {found[2][:12]}" if found else ""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return f"{UNKNOWN}Kubernetes pod {environ.get('HOSTNAME', '')}{',' + named if named else ''}".rstrip()
    if (root / ".dockerenv").exists():
        return f"{UNKNOWN}Docker{named}"
    if (root / "run/.containerenv").exists():
        return f"{UNKNOWN}Podman{named}"
    kind = environ.get("container", "") or (_KINDS.get(found[1], "") if found else "")
    return f"{UNKNOWN}{_KINDS.get(kind, kind) or 'a'}{named or ' container'}" if kind or found else ""


def _sif_id(image: Path) -> str:
    """Return the UUID in the header of an image file of Apptainer, as `@uuid:...`; empty if it cannot be read here."""
    try:
        with image.open("rb") as file:
            header = file.read(_SIF_ID + 16)
    except OSError:
        return ""
    return f"@uuid:{header[_SIF_ID:].hex()}" if header[32:41] == _SIF_MAGIC and len(header) == _SIF_ID + 16 else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
