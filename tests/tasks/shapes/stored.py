"""What plain Prefect does with the shapes that run every time: `python tests/tasks/shapes/stored.py` notes it again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STORED = HERE / "plain.json"
PACKAGES = ("numpy", "pandas", "prefect", "pydantic", "xarray")  # on which it may depend


def versions() -> dict[str, str]:
    """Return what runs here."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"platform": sys.platform, "python": python, **{name: version(name) for name in PACKAGES}}


def digest() -> str:
    """Return a hash of the shapes and of their bench."""
    found = hashlib.sha256()
    for path in sorted([*HERE.glob("shapes_*.py"), HERE / "bench.py"]):
        found.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()


def read() -> Any:
    """Return `versions` and `digest` of what is stored, and `shapes`: what became of each, by name."""
    return json.loads(STORED.read_text(encoding="utf-8"))


def main() -> None:
    """Run the shapes on a server of their own, and store what becomes of them."""
    import run

    names = [name for name, one in run.load_all().items() if one.fast]
    with tempfile.TemporaryDirectory(prefix="plain-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment |= {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_LOGGING_LEVEL": "WARNING"}
        command = [sys.executable, str(HERE / "run.py"), "plain", f"{folder}/data", f"{folder}/files", *names]
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    told = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    lines = ",\n".join(f"{json.dumps(json.loads(line)['name'])}: {line}" for line in told)
    head = json.dumps({"versions": versions(), "digest": digest()}, indent=0)[:-2]
    STORED.write_text(f'{head},\n"shapes": {{\n{lines}\n}}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
