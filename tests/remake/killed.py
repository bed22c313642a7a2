"""Run `crucible-lineage` until the n-th file that it writes, moves or removes, or process that it starts, then die.

`python killed.py N COUNTED ...`: N is 0 for a run to the end; the file COUNTED says how many there were.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from pathlib import Path
from typing import Any

EVENTS = ("os.remove", "os.rename", "os.mkdir", "os.link", "shutil.rmtree", "subprocess.Popen", "sqlite3.connect")
LAST, COUNTED = int(sys.argv[1]), Path(sys.argv[2])
seen = 0


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Count an event, and die at the n-th."""
    global seen
    is_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in EVENTS or is_writing:
        seen += 1
        if seen == LAST:
            os.kill(os.getpid(), signal.SIGKILL)


sys.dont_write_bytecode = True
sys.argv = ["crucible-lineage", *sys.argv[3:]]
from crucible_lineage.cli import main  # noqa: E402

atexit.register(lambda: COUNTED.write_text(str(seen)))
sys.addaudithook(note)
main()
