"""Foreign code within limits: no network, an empty home, none of the caller's variables, bounds of time, memory, size.

Like driver.py, this runs from a bundle, too: by Python 3.10 or newer, with nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import site
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crucible_lineage.provenance.environment import VARIABLES
from crucible_lineage.text.amounts import amount, size_text

PASSED = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH")  # to a step, beside recorded ones among VARIABLES
PASSED_TO_BUILD = (*PASSED, "HOME", "TMPDIR", "TEMP", "TMP", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy")
MOST_ENTRIES, MOST_BYTES, MOST_RATIO = 200_000, 1 << 30, 100  # chosen: unpacked from an archive, and written by a step
LEAST_S, MOST_TIMES = 3600.0, 20  # chosen: a step may take the longer of an hour, and so many times what is recorded
# Beginnings of commands that run without a network, the tightest first; each is tried before it is used.
CUTS = (
    ("bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc", "--unshare-net", "--unshare-pid"),
    ("unshare", "--user", "--map-current-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
    ("unshare", "--user", "--map-current-user", "--net"),
    ("unshare", "--user", "--map-root-user", "--net"),
)
SHELL = "/bin/sh"
LIMITED = '{ ulimit -c 0; ulimit -f "$1"; ulimit -d "$2"; } 2>/dev/null; shift 2; "$@"; exit $?'


class RemakeError(Exception):
    """Raised if a step cannot be made again; the message says why."""


class Limits(NamedTuple):
    """Limits of one step: seconds, bytes that it may write, and whether it gets the network."""

    seconds: float
    bytes: int
    network: bool


def run_confined(
    command: Sequence[str], request: Path, work: Path, variables: Mapping[str, str], limits: Limits
) -> int:
    """Run a command beside its request, with an empty home in the folder `work`. Return the exit code.

    What it prints is kept beside the request. Raises RemakeError if it exceeds a limit.
    """
    beginning: list[str] = []
    if os.name != "nt":  # limits of memory and of the size of files, and no network
        cut = [] if limits.network else list(network_cut())
        bound = ["--bind", str(work), str(work)] if cut and Path(cut[0]).name == "bwrap" else []
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        beginning = [*cut, *bound, SHELL, "-c", LIMITED, "sh", str(limits.bytes // 512), str(memory // 1024)]
    home = Path(tempfile.mkdtemp(dir=work, prefix="home-"))
    homes = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), str(home))
    with request.with_name("printed.txt").open("wb") as printed:
        process = subprocess.Popen(  # noqa: S603
            [*beginning, *command], cwd=request.parent, env={**variables, **homes},
            stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, start_new_session=True,
        )  # fmt: skip
    until = time.monotonic() + limits.seconds
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(1.0)
            if time.monotonic() > until:
                raise RemakeError(f"it was ended after {limits.seconds:.0f} s, much longer than is recorded")
            written = [path.lstat().st_size for path in work.rglob("*") if path.is_file()]
            if sum(written) > limits.bytes or len(written) > MOST_ENTRIES:
                raise RemakeError(f"it was ended: it wrote {_extent(len(written), sum(written))}, too much by far")
    finally:
        _end(process)
        shutil.rmtree(home, ignore_errors=True)


def _extent(files: int, size: int) -> str:
    return f"{amount(files, 'file')}, {size_text(size)}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started."""
    with contextlib.suppress(OSError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@functools.cache
def network_cut() -> tuple[str, ...]:
    """Return the beginning of a command that runs without a network; empty if none works on this machine."""
    for program, *options in CUTS:
        found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), os.defpath)))
        if found and not run_clean([found, *options, SHELL, "-c", ":"]).returncode:
            return (found, *options)
    return ()


def step_variables(python: Path, recorded: Mapping[str, str], *, here: bool) -> dict[str, str]:
    """Return the variables of a step: those that programs need, and recorded ones on the list, with `here` as here."""
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    passed["PATH"] = f"{python.parent}{os.pathsep}{passed.get('PATH', '')}"
    allowed = {name: value for name, value in recorded.items() if name in VARIABLES}
    if not here:
        return {**passed, **allowed}
    base = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}  # found by the home otherwise
    return {**passed, **base, **{name: os.environ[name] for name in allowed if name in os.environ}}


def run_clean(command: Iterable[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program of this machine, without the caller's keys except those of package indexes."""
    named = (name for name in os.environ if name in PASSED_TO_BUILD or name.startswith(("UV_", "PIP_")))
    return subprocess.run(list(command), capture_output=True, env={name: os.environ[name] for name in named})  # noqa: S603


def check_run(command: Iterable[str], failure: str) -> None:
    """Run a program of this machine. Raises RemakeError, with the message `failure`, if it fails."""
    if (done := run_clean(command)).returncode:
        raise RemakeError(f"{failure}: {last_lines(done.stderr or done.stdout)}")


def last_lines(output: bytes) -> str:
    """Return the last lines of what a program printed, as one."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or "it printed nothing"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a ZIP file. Raises RemakeError if it holds too much, a link, or a path that leads out of the folder."""
    with zipfile.ZipFile(archive) as content:
        entries = content.infolist()
        size, most = sum(entry.file_size for entry in entries), MOST_BYTES + MOST_RATIO * archive.stat().st_size
        if len(entries) > MOST_ENTRIES or size > most:
            raise RemakeError(f"{archive.name} holds too much to be unpacked: {_extent(len(entries), size)}")
        for entry in entries:
            target = (folder / entry.filename).resolve()
            is_link = entry.external_attr >> 16 & 0o170000 not in (0, 0o100000, 0o040000)
            if is_link or "\\" in entry.orig_filename or folder.resolve() not in (target, *target.parents):
                raise RemakeError(f"{archive.name} holds {entry.filename!r}, a link or a path out of its folder")
        content.extractall(folder)  # reads no more of an entry than its stated size


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder, without links that lead out of it."""
    return [path for path in folder.rglob("*") if path.is_file() and folder.resolve() in path.resolve().parents]
