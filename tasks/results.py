"""The result of a task run as a dataset: stored at once, and linked again if Prefect's cache has it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from crucible_lineage.refs import file_stem
from crucible_lineage.tasks.arguments import keyword_of, of_keyword
from crucible_lineage.tasks.dataset import (
    TaskResult,
    about_of,
    inputs_of,
    known_inputs,
    put_result,
    slots_of,
)
from crucible_lineage.tasks.effects import files_written
from crucible_lineage.tasks.origins import Origin
from crucible_lineage.tasks.secret import holds_secret
from crucible_lineage.tasks.values import (
    Stored,
    copy_file,
    described_only,
    digest_of,
    flat,
    parts_of,
    store_value,
)


def record_result(result: TaskResult, value: object) -> bool:
    """Store the result and put it into the outbox. Returns False if nothing was returned or written."""
    recording, origins = result.recording, result.recording.origins
    folder = Path(tempfile.mkdtemp(prefix=file_stem(result.description.name), dir=recording.folder))
    stored = _stored(result, value, folder) if value is not None else Stored({}, ())
    changed = result.arguments.changed_files()
    written = files_written(result.description.name, changed, result.opened, stored.paths, result.logger)
    if not stored.files and not written and result.addresses:
        stored = store_value({"addresses": list(result.addresses)}, folder)
    stored = _with_written(stored, written, result.arguments.paths, folder)
    if not stored.files:
        shutil.rmtree(folder)
        return False
    inputs = inputs_of(result, written)
    result = replace(
        result,
        stored=stored,
        inputs=inputs,
        outputs=frozenset(written),
        ended=datetime.now(UTC).isoformat(),
        is_uncertain=bool(written) and (not inputs or (result.opened.has_children and not result.opened.is_seen)),
    )
    dataset = put_result(result)
    shutil.rmtree(folder)
    about = about_of(inputs) or (f"{result.description.name} {stored.digest[:16]}",)
    names = tuple(file.ref.name for file in stored.files)
    origin = Origin(dataset, names, "" if stored.described else stored.digest, about)
    if result.output == "out":
        origins.note_run(result.task_run_id, origin)
        for keyword in result.keywords:
            origins.keywords[keyword] = origin
    by_name = {file.ref.name: file.ref.sha256 for file in stored.files}
    for part, names in parts_of(stored.document, value):
        _note_part(result, part, {name: by_name[name] for name in names} or by_name, stored, origin)
    for path, name in stored.paths.items():
        origins.note_path(path, by_name[name], Origin(dataset, (name,), about=about))
    return True


def _note_part(result: TaskResult, part: object, files: Mapping[str, str], stored: Stored, whole: Origin) -> None:
    """Note the origin of a result, or of a part of it, which is in these files."""
    origins = result.recording.origins
    digest = "" if any(name in stored.described for name in files) else digest_of(files.values())
    origin = replace(whole, files=tuple(files), digest=digest)
    if not (id(part) in result.arguments.ids and isinstance(part, (str, bytes, int, float))):
        origins.note_object(part, origin)
    origins.note_items(part, origin, result.arguments.ids)
    if digest:
        origins.note_content(digest, sum(file.ref.size for file in stored.files if file.ref.name in files), origin)


def link_cached(result: TaskResult, value: object, key: str) -> None:
    """Link a value from Prefect's cache to the result that was stored under the key."""
    recording, origins = result.recording, result.recording.origins
    origin = origins.of_object(value)
    if origin is None:
        with tempfile.TemporaryDirectory(dir=recording.folder) as folder:
            origin = of_keyword(keyword_of("cache", key), recording, store_value(value, Path(folder)).digest)
    if origin is None:
        result.logger.warning(
            "no parent known for the result of %s: Prefect's cache has it from a run that registered nothing; "
            "run it once with refresh_cache=True",
            result.description.name,
        )
        names = {read.role: read.path.name if read.path else read.known_by for read in result.arguments.inputs}
        arguments = replace(result.arguments, inputs=[], paths={}, params={**names, **result.arguments.params})
        record_result(replace(result, arguments=arguments, key=key, is_cached=True), value)
        return
    recording.reused += 1
    origins.note_run(result.task_run_id, origin)
    origins.note_object(value, origin)
    origins.keywords[keyword_of("cache", key)] = origin
    claims = slots_of(result, about_of(known_inputs(result)))
    recording.slots.rely(recording.destination.project, claims, origin.dataset, made=False)
    recording.note(origin.dataset)


def _stored(result: TaskResult, value: object, folder: Path) -> Stored:
    """Store a value, unless it holds a secret; a warning says what is only described."""
    name = result.description.name
    stored = store_value(value, folder, given=result.arguments.paths.values())
    if any(holds_secret(file.path) for file in stored.files):
        for file in stored.files:
            file.path.unlink()
        result.logger.warning("the result of %s holds a secret; it is described, not stored", name)
        return described_only("", folder, "a value that holds a secret")
    if new := set(stored.described.values()) - result.recording.not_stored:
        result.recording.not_stored |= new
        result.logger.warning(
            "the result of %s is%s %s, which is described and not stored; crucible_lineage.tasks.add_kind says how to "
            "store it",
            name,
            " or holds" if stored.is_whole else "",
            ", ".join(dict.fromkeys(stored.described.values())),
        )
    return stored


def _with_written(stored: Stored, written: Mapping[str, list[Path]], roots: Mapping[str, Path], folder: Path) -> Stored:
    """Add copies of the files that a call has written at paths of these arguments."""
    files, known = list(stored.files), dict(stored.paths)
    for role, paths in written.items():
        for path in (path for path in paths if path not in known):
            name = flat(path.relative_to(roots[role])) if path != roots[role] else path.name
            known[path] = name if name not in {file.ref.name for file in files} else f"{role}-{name}"
            files.append(copy_file(path, folder, known[path]))
    return replace(stored, files=tuple(files), paths=known)
