"""Under which circumstances a step ran: who asked for it, the state of the checkout, the versions of its packages."""

from __future__ import annotations

import functools
import getpass
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["CONTAINER_VARIABLE", "agent", "container", "git_state", "software"]

CONTAINER_VARIABLE = "CRUCIBLE_LINEAGE_CONTAINER"


def agent(user: Mapping[str, object]) -> dict[str, Any]:
    """Return who did it: the account at Crucible, and the name on this machine."""
    try:
        local = getpass.getuser()
    except (KeyError, OSError):  # a container without a password entry
        local = None
    known = {key: user.get(key) for key in ("unique_id", "username", "is_service_account")}
    return {**known, "local_user": local}


@functools.cache
def git_state(folder: Path) -> Mapping[str, object] | None:
    """Commit and cleanliness of the git checkout that a folder lies in; None if there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def software(packages: Iterable[str], environment: Mapping[str, str] | None = None) -> dict[str, object]:
    """Python, platform, and the versions of the distributions that bring these import packages, and of our own.

    `environment` is where all that is installed is kept.
    """
    names = {name for package in packages for name in _distributions().get(package, [])}
    names.add("crucible-lineage")
    versions = {name: _version(name) for name in sorted(names)}
    found: dict[str, object] = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {"packages": versions, **({"container": image} if (image := container()) else {})}
    return found | ({"environment": dict(environment)} if environment else {})


@functools.cache
def container() -> str:
    """Return the image of the container that this runs in, as far as it is known; empty outside of one.

    CRUCIBLE_LINEAGE_CONTAINER says it (Docker tells nothing inside), else Podman's file, else Apptainer's variable.
    """
    if named := os.environ.get(CONTAINER_VARIABLE):
        return named
    try:
        lines = Path("/run/.containerenv").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER") or ""
    told = {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
    digest = told.get("imageid", "").removeprefix("sha256:")
    return "@sha256:".join(filter(None, (told.get("image", ""), digest)))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@functools.cache
def _version(name: str) -> str:
    """The version of a distribution; reading it takes longer than checking the whole record."""
    return metadata.version(name)
