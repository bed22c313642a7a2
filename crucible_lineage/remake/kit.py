"""A kit: a folder with everything that is needed to run steps again, and the programs for it.

remake/plan.json               the steps, parents first
remake/source/SHA256.zip       their source
remake/environment/SHA256.*    their environments, as documents and as locks
remake/runtime.zip             the code of crucible-lineage, by which steps are declared and called
remake/compare.py, and reproduce.py, which starts the driver in runtime.zip
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import LineageError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.graph import executions
from crucible_lineage.lineage.records import returned_values
from crucible_lineage.marks import KEY
from crucible_lineage.pipeline.plan.facts import facts_in
from crucible_lineage.pipeline.plan.fetch import cached_file
from crucible_lineage.provenance.environment import lock_text
from crucible_lineage.provenance.record import ATTACHED_NAME
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.remake.driver import COMPARER, FORMAT, PLAN, RUNTIME
from crucible_lineage.session import Session
from crucible_lineage.text.commands import is_command
from crucible_lineage.text.times import utc

if TYPE_CHECKING:
    from crucible_lineage.provenance.schema import KeptFile, StepRecord

DRIVER = "reproduce.py"
MANIFEST, RECORDS = "manifest-sha256.txt", "records"  # of a bundle
SOURCES, ENVIRONMENTS = "remake/source", "remake/environment"
_OWN = "crucible_lineage"
STARTER = '''"""Run foreign code: make results again from the sources kept with them, and compare.

    python reproduce.py [MFID ...] [--all] [--here] [--rtol 1e-9] [--network]

Without an MFID, the result that the bundle is about is made again; with `--all` all steps, from the measured files on.
Each step runs in an environment built with the recorded versions (by `uv`, or `venv` and `pip`), or with `--here` in
that of this Python. The bundle is not changed. Exit code 0: all is the same, within the tolerance; 1: something differs
or could not be made; 2: there is nothing to make again.
"""

import sys
import types
from pathlib import Path

print("This runs foreign code: the steps in this bundle, with your rights.", file=sys.stderr, flush=True)
BUNDLE = Path(__file__).resolve().parent
package = types.ModuleType("crucible_lineage")  # not the installed one, and without what that imports
package.__path__ = [str(BUNDLE / "remake" / "runtime.zip" / "crucible_lineage")]
sys.modules["crucible_lineage"] = package

from crucible_lineage.remake.driver import main

sys.exit(main(BUNDLE, __doc__))
'''
FileOf = Callable[[str, FileRef], "Path | None"]
BytesOf = Callable[["KeptFile"], bytes]


@dataclass(frozen=True)
class KitStep:
    """An output of a step: its id, its complete record, and its scientific metadata."""

    mfid: str
    record: StepRecord
    metadata: JsonMapping


def write_kit(folder: Path, about: str, outputs: Sequence[KitStep], file_of: FileOf, bytes_of: BytesOf) -> list[Path]:
    """Write a kit for these outputs of steps and return the written files.

    `file_of` returns a dataset's file, which is copied unless it is in the folder; None if it is omitted. `bytes_of`
    returns source or environment. Both raise LineageError if the bytes cannot be obtained.
    """
    writer = _Writer(folder, file_of, bytes_of)
    by_id = {output.mfid: output for output in outputs}
    links = ((parent, mfid) for mfid, output in by_id.items() for parent in output.record.parents)
    groups = executions({mfid: output.record.recipe for mfid, output in by_id.items()}, links)
    steps = [writer.entry([by_id[mfid] for mfid in group]) for group in groups]
    writer.text(PLAN, json.dumps({"format": FORMAT, "about": about, "steps": steps}, indent=1, ensure_ascii=False))
    own = resources.files("crucible_lineage.remake")
    writer.text(DRIVER, STARTER)
    writer.text(COMPARER, own.joinpath("compare.py").read_text(encoding="utf-8"))
    writer.data(RUNTIME, _runtime())
    return writer.written


class _Writer:
    def __init__(self, folder: Path, file_of: FileOf, bytes_of: BytesOf) -> None:
        self.folder = folder
        self.file_of = file_of
        self.bytes_of = bytes_of
        self.written: list[Path] = []

    def entry(self, group: Sequence[KitStep]) -> JsonObject:
        """Return the entry of one execution in the plan."""
        record = group[0].record
        code, recipe = record.activity.code, record.recipe
        faults = [_why_not(record)]
        source = self._kept(code.archive, SOURCES, ".zip", faults) if code.archive else None
        environment = self._kept(record.software.environment, ENVIRONMENTS, ".json", faults)
        if environment:
            lock, document = environment["path"].replace(".json", ".txt"), self.folder / environment["path"]
            if not (self.folder / lock).exists():
                self.text(lock, lock_text(json.loads(document.read_text(encoding="utf-8"))))
            environment["lock"] = lock
        facts = facts_in(recipe)
        declared = record.activity.declared
        return {
            "name": record.declared_step,
            "function": record.activity.function,
            "params": recipe["params"],
            "facts": None if facts is None else facts.to_json(),
            "inputs": [
                {
                    "role": used.role,
                    "mfid": used.mfid,
                    "files": [self._file(used.mfid, file) for file in used.files or ()],
                }
                for used in record.used
            ],
            "outputs": {
                output.record.output: {
                    "mfid": output.mfid,
                    "files": [
                        {**self._file(output.mfid, file), "log": file.log, "preview": file.preview}
                        for file in output.record.generated or ()
                        if file.name != ATTACHED_NAME
                    ],
                    "returned": _returned_values(output),
                }
                for output in group
            },
            "source": source,
            "environment": environment,
            "packages": sorted(record.software.packages),
            "seconds": (utc(record.activity.ended) - utc(record.activity.started)).total_seconds(),
            "read": code.read or [],
            "left_out": code.left_out or [],
            "reproduce": (declared.reproduce if declared else None) or {},
            "why_not": next(filter(None, faults), ""),
        }

    def data(self, path: str, content: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.written.append(target)

    def text(self, path: str, content: str) -> None:
        self.data(path, content.encode("utf-8", "backslashreplace"))

    def _file(self, mfid: str, file: Any) -> JsonObject:
        entry = {"name": file.name, "sha256": file.sha256, "size": file.size}
        try:
            source = self.file_of(mfid, FileRef(**entry))
        except LineageError as error:
            return {**entry, "path": None, "why": str(error).partition("\n")[0]}
        if source is None or source.is_relative_to(self.folder):
            return {**entry, "path": source and source.relative_to(self.folder).as_posix()}
        copy = self.folder / "data" / mfid / file.sha256
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        return {**entry, "path": copy.relative_to(self.folder).as_posix()}

    def _kept(self, kept: KeptFile | None, kind: str, ending: str, faults: list[str]) -> JsonObject | None:
        """Copy a support file of results into the kit."""
        if kept is None:
            return None
        path = f"{kind}/{kept.sha256}{ending}"
        if not (self.folder / path).exists():
            try:
                self.data(path, self.bytes_of(kept))
            except LineageError as error:
                faults.append(f"its {Path(kind).name}, dataset {kept.mfid}, cannot be had: {error}")
                return None
        return {"mfid": kept.mfid, "sha256": kept.sha256, "path": path}


def _why_not(record: StepRecord) -> str:
    """Return why a result cannot be made again, from its record; empty if nothing in it prevents that."""
    function, params = record.activity.function, record.recipe["params"]
    is_program = is_command(function)
    if "result_sha256" in params:
        return "a task of a flow made it from values of Python, of which the record has hashes only; run the flow"
    secret = [name for name, value in params.items() if isinstance(value, Mapping) and {*value} == {"secret"}]
    if secret:
        return f"its parameter {secret[0]} is secret, and was not kept"
    has_everything = is_program and record.software.environment is not None and not record.activity.code.left_out
    if record.activity.code.archive is None and not has_everything:  # a command may have no script
        left_out = record.activity.code.left_out or []
        return f"its source was not kept: {left_out[0]}" if left_out else "its source was not kept when it was made"
    if not is_program and ("<" in function or function.startswith("__main__:")):
        return f"its function {function} cannot be imported; give it a name in a module"
    return ""


def _returned_values(output: KitStep) -> JsonObject | None:
    """Return the values that the step returned; None if the record does not say which those are."""
    if output.record.result is None:
        return None
    declared = output.record.activity.declared
    described = set(declared.output.metadata or ()) if declared and declared.output else set()
    record = {"result": {"keys": list(output.record.result.keys)}}
    found = returned_values({"scientific_metadata": {**output.metadata, KEY: record}})
    return {name: value for name, value in found.items() if name not in described}


def kept_bytes(session: Session, kept: KeptFile) -> bytes:
    """Return source or environment of a result from Crucible. Raises LineageError if the bytes are lost or others."""
    file = FileRef(kept.name, kept.sha256, 0)
    return cached_file(DatasetRef(kept.mfid, kept.mfid, (file,)), file, session).read_bytes()


def _runtime() -> bytes:
    """Return an archive with each module of crucible-lineage, and the schemas that they read."""
    found: dict[str, Traversable] = {}
    waiting = [(name.replace(".", "/"), resources.files(name)) for name in (_OWN, f"{_OWN}.tasks", f"{_OWN}.flows")]
    while waiting:
        path, folder = waiting.pop()
        for child in folder.iterdir():
            if child.is_dir():
                waiting.append((f"{path}/{child.name}", child))
            elif child.name.endswith((".py", ".json")):
                found[f"{path}/{child.name}"] = child
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, file in sorted(found.items()):
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return content.getvalue()
