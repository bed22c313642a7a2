"""Runs shapes one after the other: `run.py plain|converted DATA FOLDER NAME...`; a line of JSON for each.

`START name` comes before each, so that whoever reads knows which one hangs.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORDS_ONLY = ("orphan",)  # of results whose task is called `fit` or the like, and has no input


def load_all() -> dict[str, Any]:
    """All shapes, by name."""
    sys.path.insert(0, str(HERE))
    import bench

    for path in sorted(HERE.glob("shapes_*.py")):
        name = f"_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return dict(bench.SHAPES)


def lineage(project: str) -> dict[str, Any]:
    """What Crucible has of it: edges by the names of tasks, and what is wrong."""
    from crucible_lineage.ask.verify import verify_project
    from crucible_lineage.tasks import CrucibleConnection, session_for

    session = session_for(CrucibleConnection())
    if session.client.projects.find(project) is None:
        return {"edges": [], "datasets": 0, "findings": []}
    found = session.client.datasets.list(project_id=project, include_metadata=True, limit=None)
    names = {one.unique_id: name_of(one) for one in found}
    links = [
        (parent.unique_id, one.unique_id)
        for one in found
        for parent in session.client.datasets.list_parents(one.unique_id)
        if parent.unique_id in names
    ]
    linked = {mfid for link in links for mfid in link}
    alone = [f"-> {name}" for mfid, name in names.items() if mfid not in linked]
    verified = verify_project(session, project, read_bytes=True)
    return {
        "edges": sorted([*(f"{names[parent]} -> {names[child]}" for parent, child in links), *alone]),
        "datasets": len(found),
        "findings": [str(finding) for finding in verified.findings if finding.check not in WORDS_ONLY],
    }


def name_of(dataset: Any) -> str:
    told = (dataset.scientific_metadata or {}).get("flow", {})
    name = told.get("task") or dataset.dataset_name
    name = re.sub(r" \((changed|taken|derived)[^)]*\)$", r" (\1)", name)
    return re.sub(r" \(from the flow's code.*", " (from the flow)", name)


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[3])
    os.environ["CRUCIBLE_LINEAGE_DATA"] = sys.argv[2]
    shapes = load_all()
    import bench

    for name in sys.argv[4:]:
        print(f"START {name}", flush=True)
        lab = bench.Lab(name, folder / name, converted=mode == "converted")
        heard = bench.Heard()
        logging.getLogger("prefect").addHandler(heard)
        told: dict[str, Any] = {"name": name}
        try:
            told["returned"] = lab._shown(repr(shapes[name].run(lab)))
        except Exception as error:
            told["raised"] = lab._shown(f"{type(error).__name__}: {error}")
        logging.getLogger("prefect").removeHandler(heard)
        told |= lab.told()
        told["heard"] = [lab._shown(line) for line in heard.lines]
        if mode == "converted":
            told |= lineage(lab.project)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
