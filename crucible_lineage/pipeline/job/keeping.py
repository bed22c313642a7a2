"""Support of results: the source of their steps and the environment, each registered once in a project.

Both are datasets that lists leave out. Their ids follow from their bytes, so that ten thousand results of one code
share one. Set CRUCIBLE_LINEAGE_KEEP=no where code must not leave the machine; records then say that nothing was kept.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.errors import InputError, shortened
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.records import SOURCE, SURROUNDINGS
from crucible_lineage.machine.checksums import file_sha256, scan_file, stamp
from crucible_lineage.pipeline.plan.command import arguments_of
from crucible_lineage.pipeline.plan.inspect import RULES
from crucible_lineage.provenance.environment import (
    CONTAINER_VARIABLE,
    UNKNOWN,
    canonical_text,
    container,
    environment_document,
    environment_mark,
    lock_text,
)
from crucible_lineage.provenance.recipe import raw_mfid, raw_recipe
from crucible_lineage.provenance.record import files_record
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.deliver import Deliver
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import EPOCH
from crucible_lineage.text.amounts import size_text
from crucible_lineage.text.commands import is_command
from crucible_lineage.text.masking import is_key_file, masked, masked_text, redactor_of

if TYPE_CHECKING:  # results of a flow's tasks are no jobs
    from crucible_lineage.pipeline.plan.plan import StepPlan

KEEP_VARIABLE = "CRUCIBLE_LINEAGE_KEEP"
SOURCE_NAME, ENVIRONMENT_NAME, LOCK_NAME = "source.zip", "environment.json", "requirements.txt"
KEYWORD = "supports results"

Contents = tuple[tuple[str, bytes], ...]  # names and bytes of files

_lock = threading.Lock()
_environments: dict[str, Contents] = {}  # by mark


MOST_BYTES = 64 << 20  # chosen: of one file; larger data belong into a dataset
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Support:
    """The source and the environment of a result, as they are before its step runs.

    `source` and `surroundings` are their files. Once registered, `archive` and `environment` are their entries in the
    record. `left_out` could not be kept.
    """

    source: Contents = ()
    surroundings: Contents = ()
    program: Mapping[str, str] | None = None
    left_out: tuple[str, ...] = ()
    archive: Mapping[str, str] | None = None
    environment: Mapping[str, str] | None = None

    @property
    def note(self) -> str:
        """The note for the user who runs the step; empty if everything was kept."""
        left_out = f"not kept of its source: {shortened(self.left_out, 1)}" if self.left_out else ""
        image = container()
        unknown = f"the image of its container is not known ({image}): set {CONTAINER_VARIABLE}"
        return "; ".join(filter(None, (left_out, unknown if image.startswith(UNKNOWN) else "")))

    def registered(self, project: str, session: Session, deliveries: Deliver) -> Support:
        """Register what the project does not have yet."""
        archive, environment = (
            _register(project, session, kind, contents, deliveries) if contents else None
            for kind, contents in ((SOURCE, self.source), (SURROUNDINGS, self.surroundings))
        )
        return replace(self, archive=archive, environment=environment)


def support_of(job: StepPlan, session: Session, secrets: Sequence[str]) -> Support:
    """Return the source of a job's step and the environment, read only once while unchanged."""
    folder, files = job.spec.folder, job.inspection.files
    if not is_command(job.inspection.uses):
        return support_of_code(job.inspection.uses, files, folder, session, secrets)
    named = enumerate(folder / part for part in arguments_of(job.spec))
    scripts = [path for number, path in named if path.is_file() and (number or lies_in(path, folder))]
    paths = [*_with_imports(scripts, folder), *map(Path, files)]
    return _planned(paths, [folder], session, secrets, _program(job, session))


def support_of_code(
    uses: str, files: Iterable[str], folder: Path, session: Session, secrets: Sequence[str] = ()
) -> Support:
    """Return the source and the environment of a function that no pipeline declares."""
    paths = [Path(file) for file in files]
    roots = [*_roots(uses.partition(":")[0], paths), folder, *(Path(entry) for entry in sys.path if entry)]
    return _planned(paths, roots, session, secrets)


def _planned(
    paths: Sequence[Path],
    roots: Sequence[Path],
    session: Session,
    secrets: Sequence[str],
    program: Mapping[str, str] | None = None,
) -> Support:
    if os.environ.get(KEEP_VARIABLE, "").lower() in ("no", "0", "off", "false"):
        return Support()
    try:
        contents, left_out = _archive(tuple(paths), tuple(map(stamp, paths)), tuple(roots), tuple(secrets))
    except OSError as error:
        contents, left_out = (), (f"{error.filename}: it cannot be read: {error.strerror}",)
    return Support(contents, present_environment(session), program, left_out)


def present_environment(session: Session) -> Contents:
    """Return the files of the environment of this Python, as they are kept."""
    mark = environment_mark()
    with _lock:  # the first steps of a run begin together, and this takes half a second
        if mark not in _environments:
            query = f"environment {mark}"
            document = session.store.inspection(query, RULES)
            if not isinstance(document, dict):
                document = masked(environment_document(), by_name=False)
                session.store.keep_inspections(RULES, [(query, (), document)])
            texts = ((ENVIRONMENT_NAME, canonical_text(document)), (LOCK_NAME, lock_text(document)))
            _environments[mark] = tuple((name, text.encode()) for name, text in texts)
        return _environments[mark]


def _register(project: str, session: Session, kind: str, contents: Contents, deliveries: Deliver) -> Mapping[str, str]:
    """Register these files as a dataset, unless they exist as one. Return the entry for records: of the first file."""
    refs, recipe, mfid = _identity(project, contents)
    entry = {"mfid": mfid, "name": refs[0].name, "sha256": refs[0].sha256}
    if known := session.known(mfid):
        return {**entry, "mfid": known.mfid}
    with session.turn(mfid):
        session.outbox.row(mfid)
        if known := session.known(mfid):
            return {**entry, "mfid": known.mfid}
        with session.outbox.draft() as folder:
            paths = [folder / name for name, _ in contents]
            for path, (_, data) in zip(paths, contents, strict=True):
                path.write_bytes(data)
            files = tuple(LocalFile.of(path, scan_file(path)) for path in paths)
            new = NewDataset(
                mfid=mfid,
                fields={
                    "project_id": project,
                    "dataset_name": f"{kind} {refs[0].sha256[:8]}",
                    "measurement": kind,
                    "data_type": kind,
                },
                record=files_record(recipe, refs, session.agent, activity={"kind": kind}),
                metadata={},
                files=files,
                keywords=(KEYWORD,),
                ingest=False,
            )
            payload = session.outbox.put(kind, project, [new], draft=folder)
    deliveries(payload.row(session.account))
    return entry


@functools.lru_cache(maxsize=64)  # each result of a step asks for the same
def _identity(project: str, contents: Contents) -> tuple[Sequence[FileRef], JsonMapping, str]:
    """Return the entries of these files, and the recipe and the id of their dataset."""
    refs = [FileRef(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in contents]
    recipe = raw_recipe(project, refs)
    return refs, recipe, raw_mfid(recipe, EPOCH)


def _program(job: StepPlan, session: Session) -> Mapping[str, str] | None:
    """Return path and hash of the program that a command starts; None if it is a script of the project."""
    try:
        name = arguments_of(job.spec)[0]
    except InputError:
        return None
    found = None if lies_in(job.spec.folder / name, job.spec.folder) else shutil.which(name)
    if found is None:
        return None
    query = f"program {found}"
    facts = session.store.inspection(query, RULES)
    if not isinstance(facts, dict):
        path = Path(found).resolve()
        facts = {"path": str(path), "sha256": file_sha256(path)}
        session.store.keep_inspections(RULES, [(query, (found, str(path)), facts)])
    return facts


# The source of a step: the project's own files that its fingerprint covers, laid out as they are imported.
#
# The archive has complete modules and the files that `reads` names; for a command, its scripts and the modules that
# these import from beside them. It has nothing from outside the folders of code and declaration, and no secrets.


def lies_in(path: Path, folder: Path) -> bool:
    """Return whether a file exists, and is in the folder."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


@functools.lru_cache(maxsize=64)
def _archive(
    files: Sequence[Path],
    stamps: object,  # noqa: ARG001 (part of the key)
    roots: Sequence[Path],
    secrets: Sequence[str],
) -> tuple[Contents, tuple[str, ...]]:
    """Return the archive of files with these stamps, as imported from `roots`, and what was left out, with reasons.

    Equal files give equal bytes on every machine.
    """
    mask, left_out, placed, content = redactor_of(secrets), list[str](), dict[str, Path](), io.BytesIO()
    for file in dict.fromkeys(files):
        path = _archive_path(file, roots)
        if not path:
            left_out.append(f"{file.name}: it lies outside the folders of the code and of the declaration")
        elif placed.setdefault(path, file) != file:
            left_out.append(f"{file}: another file takes the place {path}")
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:  # deflated bytes differ between versions
        for path, file in sorted(placed.items()):
            if reason := _exclusion(file):
                left_out.append(f"{path}: {reason}")
                continue
            data = file.read_bytes()
            if masked_text(path) != path or mask.holds(data):
                left_out.append(f"{masked_text(path)}: it holds a secret")
                continue
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)
        is_empty = not archive.namelist()
    return () if is_empty else ((SOURCE_NAME, content.getvalue()),), tuple(left_out)


def _exclusion(file: Path) -> str:
    """Return why a file is left out, by its name or size; empty if it is not."""
    if is_key_file(file):
        return "by its name, it is a secret"
    try:
        size = file.stat().st_size
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return f"it has {size_text(size)}; give it to the step as an input" if size > MOST_BYTES else ""


def _roots(module: str, files: Iterable[Path]) -> Iterator[Path]:
    """Yield the folder in which the module of a step was found."""
    parts = module.split(".")
    for file in files:
        for tail in ((*parts[:-1], f"{parts[-1]}.py"), (*parts, "__init__.py")):
            if file.parts[-len(tail) :] == tail:
                yield file.parents[len(tail) - 1]


def _archive_path(file: Path, roots: Iterable[Path]) -> str:
    """Return a file's path relative to the folder that it is imported from; empty if it is in none."""
    found = [file.relative_to(root) for root in roots if file.is_relative_to(root) and ".." not in file.parts]
    inside = [root for root in roots if file.resolve().is_relative_to(root.resolve())]
    if not found or not inside:
        return ""
    first = found[0] if file.suffix == ".py" and roots else min(found, key=lambda path: len(path.parts))
    return first.as_posix()


def _with_imports(scripts: Iterable[Path], folder: Path) -> Iterator[Path]:
    """Yield scripts, and the modules that Python scripts import from beside them."""
    waiting, seen = list(scripts), set[Path]()
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        yield file
        if file.suffix != ".py":
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for name in _imported(tree):
            for base in dict.fromkeys((file.parent, folder)):
                stem = base.joinpath(*name.split("."))
                parts = (stem.with_suffix(".py"), stem / "__init__.py", stem.parent / "__init__.py")
                waiting += [path for path in parts if path.is_file() and path.is_relative_to(folder)]


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name != "*")
