"""The environment of steps: distributions, Python, machine, linear algebra, and environment variables.

Equal environments have equal documents, which contain no time, path or account.
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
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from crucible_lineage.json_types import JsonMapping, JsonObject

ENVIRONMENT = "crucible-lineage/environment/1"
VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_CBWR", "OMP_DYNAMIC", "LANG", "LC_ALL", "LC_NUMERIC", "TZ"),
    *("PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES", "MPLBACKEND", "NPY_DISABLE_CPU_FEATURES"),
)
_ALGEBRA = ("openblas", "mkl_rt", "blis", "flexiblas")
_BLAS = re.compile(rf"(?:^|/)(lib[\w.-]*(?:{'|'.join(_ALGEBRA)})[\w.-]*\.(?:so|dylib|dll)[\w.]*),", re.MULTILINE)
_FIELD = re.compile(r"^(Name|Version):[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
_PYTHON = re.compile(r"^([^,]+\.py),", re.MULTILINE)


def environment_mark() -> str:
    """Return a hash that changes with the installed distributions and the variables."""
    folders = [(entry, _changed(entry)) for entry in dict.fromkeys(sys.path) if _has_distributions(entry)]
    return hashlib.sha256(
        repr([sys.version, sys.executable, folders, _variables(), os.cpu_count()]).encode()
    ).hexdigest()


def environment_document() -> JsonObject:
    """Return the environment of this process. Reading the metadata of all distributions takes a while."""
    packages: dict[str, JsonObject] = {}
    blas: set[str] = set()
    for distribution in metadata.distributions():
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields = dict(reversed(_FIELD.findall(text.partition("\n\n")[0])))  # parsing all of them is slow
        name = re.sub(r"[-_.]+", "-", fields.get("Name", "")).lower()
        if not name or name in packages:  # the first one on the path is imported
            continue
        record = distribution.read_text("RECORD") or ""
        packages[name] = {"version": fields.get("Version"), **_origin(distribution)}
        if record:
            packages[name]["record_sha256"] = hashlib.sha256(record.encode()).hexdigest()
        if any(word in record for word in _ALGEBRA):  # the pattern is slow
            blas |= {f"{name}: {library}" for library in _BLAS.findall(record)}
    return {
        "schema": ENVIRONMENT,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": "-".join(filter(None, platform.libc_ver())),
        "cpu": cpu(),
        "cpus": os.cpu_count(),
        "blas": sorted(blas),
        "variables": _variables(),
        "timezone": timezone(),
        "packages": dict(sorted(packages.items())),
    }


def lock_text(document: JsonMapping) -> str:
    """Return the distributions as a requirements file for `uv pip install -r` and `pip install -r`."""
    lines = [f"# Python {document['python']} on {document['system']} {document['machine']}"]
    for name, package in document["packages"].items():
        pinned = f"{name}=={package['version']}"
        if package.get("url"):
            lines.append(f"{name} @ {package['url']}")
        else:
            lines.append(f"# {pinned}, from a folder of its machine" if package.get("local") else pinned)
    return "\n".join(lines) + "\n"


def canonical_text(document: JsonMapping) -> str:
    """Return the document as text: equal documents give equal bytes."""
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _origin(distribution: metadata.Distribution) -> JsonObject:
    """Return the source of a distribution: a URL, or `local` for a folder; empty if it is from an index."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return {}
    try:
        fields = json.loads(text)
        parts = urlsplit(fields["url"])
    except (ValueError, KeyError, TypeError):
        return {"local": True}
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return {"local": True}
    url = urlunsplit((parts.scheme, parts.hostname, parts.path, "", ""))  # without an account, a token or a query
    vcs = fields.get("vcs_info") or {}
    return {"url": f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if {"vcs", "commit_id"} <= vcs.keys() else url}


def _variables() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@functools.cache
def _has_distributions(entry: str) -> bool:
    """Return whether distributions are installed in a folder. Other folders on the path change all the time."""
    try:
        return any(path.suffix in (".dist-info", ".egg-info") for path in Path(entry or ".").iterdir())
    except OSError:
        return False


def _changed(entry: str) -> int:
    try:
        return os.stat(entry or ".").st_mtime_ns  # noqa: PTH116  (called for each step)
    except OSError:
        return 0


def timezone() -> str:
    """Return the name of the system's time zone. TZ is among the variables."""
    return os.path.realpath("/etc/localtime").partition("zoneinfo/")[2] or "/".join(time.tzname)


def cpu() -> str:
    """Return the model of the processor, on which the instructions for sums depend."""
    fields = (line.partition(":") for line in _text(Path("/proc/cpuinfo")).splitlines())
    models = (value.strip() for name, _, value in fields if name.strip() in ("model name", "Model", "cpu model"))
    return next(models, "") or platform.processor() or platform.machine()


def agent(user: Mapping[str, object]) -> JsonObject:
    """Return the agent: the account at Crucible, and the name on this machine."""
    try:
        local = getpass.getuser()
    except (KeyError, OSError):  # a container without a password entry
        local = None
    account = {key: user.get(key) for key in ("unique_id", "username", "is_service_account")}
    return {**account, "local_user": local}


@functools.cache
def git_state(folder: Path) -> Mapping[str, object] | None:
    """Return the commit and cleanliness of the git checkout that contains a folder; None if there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def software(packages: Iterable[str], environment: Mapping[str, str] | None = None) -> dict[str, object]:
    """Return Python, platform, and the versions of these packages; `environment` refers to the full document."""
    names = {name for package in packages for name in _providers(package)}
    names.add("crucible-lineage")
    versions = {name: _version(name) for name in sorted(names)}
    document: dict[str, object] = {"python": platform.python_version(), "platform": platform.platform()}
    document |= {"packages": versions, **({"container": image} if (image := container()) else {})}
    return document | ({"environment": dict(environment)} if environment else {})


@functools.cache
def _providers(package: str) -> tuple[str, ...]:
    """Return the names of the distributions with a package."""
    return tuple(distribution.metadata["Name"] for distribution in _distributions().get(package, []))


@functools.cache
def _distributions() -> Mapping[str, list[metadata.Distribution]]:
    """Return the distributions by the packages in them, as `packages_distributions` does, which parses all metadata."""
    found: dict[str, list[metadata.Distribution]] = {}
    for distribution in metadata.distributions():
        packages = set((distribution.read_text("top_level.txt") or "").split())
        for path in _PYTHON.findall("" if packages else distribution.read_text("RECORD") or ""):
            packages.add(path.partition("/")[0].removesuffix(".py"))
        for package in packages:
            found.setdefault(package, []).append(distribution)
    return found


@functools.cache
def _version(name: str) -> str:
    """Return the version of a distribution, cached since reading it is slow."""
    return metadata.version(name)


CONTAINER_VARIABLE = "CRUCIBLE_LINEAGE_CONTAINER"
UNKNOWN = "unknown: a container"


@functools.cache
def container() -> str:
    """Return the image as `registry/name:tag@sha256:...`, UNKNOWN if nothing names it; empty outside of containers."""
    return container_in(Path("/"), os.environ)


def container_in(root: Path, environ: Mapping[str, str]) -> str:
    """Return the image for a given file system and environment."""
    if named := environ.get(CONTAINER_VARIABLE):
        return named
    if image := environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER"):
        return image
    if request := environ.get("SHIFTER_IMAGEREQUEST"):
        digest = environ.get("SHIFTER_IMAGE", "").removeprefix("sha256:")
        return request.removeprefix("docker:") + (f"@sha256:{digest}" if re.fullmatch("[0-9a-f]{64}", digest) else "")
    lines = (line.partition("=")[::2] for line in _text(root / "run/.containerenv").splitlines())
    fields = {name: value.strip('"') for name, value in lines}
    if image := "@sha256:".join(filter(None, (fields.get("image"), fields.get("imageid", "").removeprefix("sha256:")))):
        return image
    marks = (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()
    return UNKNOWN if marks or environ.get("KUBERNETES_SERVICE_HOST") or environ.get("container") else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
