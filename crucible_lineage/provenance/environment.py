"""The environment that steps run in: distributions, Python, machine, linear algebra, and the variables that matter.

Two environments are equal if their documents are: nothing in one says when, where or by whom it was looked at.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

ENVIRONMENT = "crucible-lineage/environment/1"
VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_CBWR", "OMP_DYNAMIC", "LANG", "LC_ALL", "LC_NUMERIC", "TZ"),
    *("PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES", "MPLBACKEND", "NPY_DISABLE_CPU_FEATURES"),
)
_BLAS = re.compile(
    r"(?:^|/)(lib[\w.-]*(?:openblas|mkl_rt|blis|flexiblas)[\w.-]*\.(?:so|dylib|dll)[\w.]*),", re.MULTILINE
)


def environment_mark() -> str:
    """Return what changes when a distribution comes, goes or is replaced, or a variable has another value."""
    seen = [(entry, _changed(entry)) for entry in dict.fromkeys(sys.path) if _has_distributions(entry)]
    return hashlib.sha256(repr([sys.version, sys.executable, seen, _variables(), os.cpu_count()]).encode()).hexdigest()


def environment_document() -> dict[str, Any]:
    """Return the environment of this process. It reads the metadata of all distributions, which takes a while."""
    packages: dict[str, dict[str, Any]] = {}
    blas: set[str] = set()
    for found in metadata.distributions():
        said = found.metadata  # read and parsed each time that it is asked for
        name = _normal(said["Name"] or "")
        if not name or name in packages:  # what comes first on the path is imported
            continue
        record = found.read_text("RECORD") or ""
        packages[name] = {"version": said["Version"], **_origin(found)}
        if record:
            packages[name]["record_sha256"] = hashlib.sha256(record.encode()).hexdigest()
        blas |= {f"{name}: {library}" for library in _BLAS.findall(record)}
    return {
        "schema": ENVIRONMENT,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": "-".join(filter(None, platform.libc_ver())),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "blas": sorted(blas),
        "variables": _variables(),
        "timezone": _timezone(),
        "packages": dict(sorted(packages.items())),
    }


def lock_text(document: Mapping[str, Any]) -> str:
    """Return the distributions as a file of requirements, which `uv pip install -r` and `pip install -r` read."""
    lines = [f"# Python {document['python']} on {document['system']} {document['machine']}"]
    for name, one in document["packages"].items():
        pinned = f"{name}=={one['version']}"
        if one.get("url"):
            lines.append(f"{name} @ {one['url']}")
        else:
            lines.append(f"# {pinned}, from a folder of its machine" if one.get("local") else pinned)
    return "\n".join(lines) + "\n"


def canonical_text(document: Mapping[str, Any]) -> str:
    """Return the document as text: equal documents are equal bytes."""
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _origin(found: metadata.Distribution) -> dict[str, Any]:
    """Return where a distribution is from, unless from an index: a repository and commit, or a folder here."""
    text = found.read_text("direct_url.json")
    if not text:
        return {}
    try:
        said = json.loads(text)
        parts = urlsplit(said["url"])
    except (ValueError, KeyError, TypeError):
        return {"local": True}
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return {"local": True}
    url = urlunsplit((parts.scheme, parts.hostname, parts.path, "", ""))  # without an account, a token or a query
    vcs = said.get("vcs_info") or {}
    return {"url": f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if {"vcs", "commit_id"} <= vcs.keys() else url}


def _variables() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@functools.cache
def _has_distributions(entry: str) -> bool:
    """Return whether distributions are installed there: a folder of declarations and data changes all the time."""
    try:
        return any(path.suffix in (".dist-info", ".egg-info") for path in Path(entry or ".").iterdir())
    except OSError:
        return False


def _changed(entry: str) -> int:
    try:
        return os.stat(entry or ".").st_mtime_ns  # noqa: PTH116  (it is asked for each step)
    except OSError:
        return 0


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _timezone() -> str:
    """Return the name of the system's time zone, as far as it says it: TZ is among the variables."""
    return os.path.realpath("/etc/localtime").partition("zoneinfo/")[2] or "/".join(time.tzname)


def _cpu() -> str:
    """Return the model of the processor, which decides by which instructions numbers are summed."""
    return next(_models(), "") or platform.processor() or platform.machine()


def _models() -> Iterator[str]:
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            yield value.strip()


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
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@functools.cache
def _version(name: str) -> str:
    """The version of a distribution; reading it takes longer than checking the whole record."""
    return metadata.version(name)


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
