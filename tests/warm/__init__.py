"""Python processes that begin with their imports done: each is forked from one that has imported what takes long.

A program run so is a process of its own, as with `subprocess.run`: its environment, folder, output and exit code. What
a test of the start itself is about (what it imports, and in which order) needs a real start; with variables that an
interpreter reads, as PYTHON*, it gets one. The embedded servers of the tests' own process begin likewise
(`WarmServers`).
"""

from tests.warm.programs import WarmPython
from tests.warm.servers import WarmServers

__all__ = ["WarmPython", "WarmServers"]
