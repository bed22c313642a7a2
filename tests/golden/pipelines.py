"""The lineage of a project, its ids' shape and its bytes as text, to be compared with what it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from crucible_lineage.ids import has_derived_id

PICTURES = (".png", ".svg")  # drawn a little differently by other versions of libraries


def described(ask: Callable[..., Any], project: str) -> str:
    """Return a line for each dataset of a project: name, step, version of its id, files with bytes, parents.

    `ask` runs a command with `--json` and returns its answer.
    """
    datasets = {found["mfid"]: found for found in ask("list", "--all", "--project", project)["datasets"]}
    names = {mfid: f"{found['dataset_name']} ({found['step'] or found['state']})" for mfid, found in datasets.items()}
    lines = []
    for mfid, found in datasets.items():
        shown = ask("show", mfid)
        files = {
            file["name"]: "a picture" if file["name"].endswith(PICTURES) else file["sha256"] for file in shown["files"]
        }
        described_as = {
            "dataset": names[mfid],
            "state": found["state"],
            "id": "from its recipe" if has_derived_id(mfid) else "from the clock",
            "parents": sorted(names[parent] for parent in shown["parents"]),
            "results": sorted(found["results"]),
            "params": (shown["made"] or {}).get("params"),
            "files": dict(sorted(files.items())),
        }
        lines.append(json.dumps(described_as, ensure_ascii=False, indent=1))
    return "\n".join(sorted(lines)) + "\n"
