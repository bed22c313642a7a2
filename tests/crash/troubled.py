"""`troubled.py TROUBLE N DATA ARGUMENTS`: the command line, and just before its Nth step in the file system, trouble.

A step is that a file of the data folder is opened for writing, renamed, linked or taken away. What the command does
after the trouble is its own affair.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

TROUBLE, NUMBER, DATA = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = ("os.rename", "os.link", "os.remove", "os.mkdir")
DAY_S = 86_400.0

steps = itertools.count(1)
dice = random.Random(NUMBER)
offset_s = 0.0
full = under_way = False


def overwrite(paths: list[Path]) -> None:
    """One bit of each file is another one, or its second half is gone."""
    for path in filter(Path.is_file, paths):
        mode = path.stat().st_mode
        path.chmod(0o600)
        content = bytearray(path.read_bytes())
        if content and dice.random() < 0.5:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            path.write_bytes(content)
        else:
            os.truncate(path, len(content) // 2)
        path.chmod(mode)


def cache() -> None:
    """Every file of the cache is damaged."""
    overwrite([path for path in (DATA / "cache").rglob("*") if not path.name.startswith(".part-")])


def inputs() -> None:
    """Every file that a step was given is overwritten."""
    overwrite(list((DATA / "work").glob("*/inputs/**/*")))


def garbage() -> None:
    """The local store is no database."""
    if (DATA / "store.sqlite").exists():
        (DATA / "store.sqlite").write_bytes(dice.randbytes(5000))


def scattered() -> None:
    """Some bytes of the local store are others, and so are some of its log."""
    for path in (DATA / "store.sqlite", DATA / "store.sqlite-wal"):
        if path.exists() and path.stat().st_size:
            with path.open("r+b") as stream:
                for _ in range(40):
                    stream.seek(dice.randrange(path.stat().st_size))
                    stream.write(dice.randbytes(3))


def cut() -> None:
    """The local store ends in its middle."""
    if (DATA / "store.sqlite").exists():
        os.truncate(DATA / "store.sqlite", (DATA / "store.sqlite").stat().st_size // 2)


def disk() -> None:
    """From now on no file can be opened for writing."""
    global full
    full = True


def later() -> None:
    """The clock goes forward by ten days."""
    global offset_s
    offset_s = 10 * DAY_S


def earlier() -> None:
    """The clock goes back by ten days."""
    global offset_s
    offset_s = -10 * DAY_S


TROUBLES: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (cache, inputs, garbage, scattered, cut, disk, later, earlier)
}


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: counts the steps, and makes trouble before its own one."""
    global under_way
    if under_way or (event != "open" and event not in STEPS):
        return
    path = arguments[0] if arguments else ""
    counts = bool(arguments[2] & WRITING) if event == "open" else True
    if not counts or not isinstance(path, (str, bytes, os.PathLike)) or not os.fsdecode(path).startswith(str(DATA)):
        return
    if next(steps) == NUMBER:
        under_way = True
        try:
            TROUBLES[TROUBLE]()
        finally:
            under_way = False
        print(f"trouble: {TROUBLE} before {event} {os.fsdecode(path)}", file=sys.stderr, flush=True)
    if full and event in ("open", "os.mkdir"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class _AnyTime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Jumping(datetime, metaclass=_AnyTime):
    """Times of a clock that jumps."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        """The time that the clock shows."""
        return datetime.now(tz) + timedelta(seconds=offset_s)


def put_clock() -> None:
    """All that is imported until now reads the clock that jumps."""
    really = time.time
    time.time = lambda: really() + offset_s
    for name, module in list(sys.modules.items()):
        if name.startswith("crucible_lineage") and vars(module).get("datetime") is datetime:
            module.datetime = Jumping  # type: ignore[attr-defined]


def main() -> None:
    """The command, with the trouble to come."""
    from crucible_lineage.cli import main as command

    if TROUBLE in ("later", "earlier"):
        import crucible_lineage.cli.run
        import crucible_lineage.client
        import crucible_lineage.pipeline.engines.local
        import crucible_lineage.server.running  # noqa: F401

        put_clock()
    sys.addaudithook(hook)
    command(sys.argv[4:])


if __name__ == "__main__":
    main()
