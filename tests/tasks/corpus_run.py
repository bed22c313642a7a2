"""The flows of the corpus, run one after the other in one process: plain, converted, or converted with reuse.

`corpus_run.py MODE DATA FOLDER [NAME...]`, in the environment of a Prefect server; prints JSON by flow.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.tasks import CrucibleConnection, session_for

CORPUS = Path(__file__).with_name("corpus")


def converted(text: str, project: str) -> str:
    """Add the line, and its import."""
    text = re.sub(r"(from prefect import .*\n)", r"\1from crucible_lineage.tasks import registering\n", text, count=1)
    last = [found.end() for found in re.finditer(r"\n( *)@flow.*\n", text)][-1]
    indent = re.match(r" *", text[last:]).group()  # type: ignore[union-attr]
    line = f'{indent}@registering("{project}")\n'
    return text[:last] + line + text[last:]


def load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def lineage(project: str) -> dict[str, Any]:
    """Return the lineage in Crucible: edges by the names of tasks, and findings."""
    session = session_for(CrucibleConnection())
    if session.client.projects.find(project) is None:
        return {}
    found = session.client.datasets.list(project_id=project, include_metadata=True, limit=None)
    names = {one.unique_id: name_of(one) for one in found}
    edges = Counter(
        f"{names[parent.unique_id]} -> {names[one.unique_id]}"
        for one in found
        for parent in session.client.datasets.list_parents(one.unique_id)
    )
    verified = verify_project(session, project, read_bytes=True)
    return {
        "edges": sorted(edges.elements()),
        "datasets": len(found),
        "findings": [str(finding) for finding in verified.findings],
    }


def name_of(dataset: Any) -> str:
    flow_metadata = (dataset.scientific_metadata or {}).get("flow", {})
    name = flow_metadata.get("task") or dataset.dataset_name
    name = re.sub(r" \(changed in the flow's code.*", " (changed)", name)
    return re.sub(r" \(from the flow's code.*", " (from the flow)", name)


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[3])
    report = {}
    for path in sorted(CORPUS.glob("s*.py")):
        if sys.argv[4:] and path.stem not in sys.argv[4:]:
            continue
        project = path.stem.replace("_", "-")[:24]
        text = path.read_text(encoding="utf-8")
        source = folder / "sources" / f"{path.stem}.py"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text if mode == "plain" else converted(text, project), encoding="utf-8")
        module = load(source, path.stem)
        target = folder / path.stem
        target.mkdir(exist_ok=True)
        from crucible_lineage.tasks import recording

        opened: list[Any] = []
        original = recording.Recording.close

        def noting(self: Any, _opened: list[Any] = opened, _original: Any = original, **how: Any) -> None:
            _original(self, **how)
            _opened.append(self)

        recording.Recording.close = noting  # type: ignore[method-assign]
        returned = module.main(target)
        recording.Recording.close = original  # type: ignore[method-assign]
        executed = {one.destination.run_id: len(one.futures) - one.reused for one in opened}
        report[path.stem] = {
            "returned": repr(returned),
            "plain": module.RETURNED,
            "not reused": sum(executed.values()),
            "reused": sum({one.destination.run_id: one.reused for one in opened}.values()),
            "expected": sorted(module.EDGES),
            **(lineage(project) if mode != "plain" else {}),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
