"""The result of a task run as a dataset: stored at once, registered beside the flow, and found again on request."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.pipeline.files.fetch import place_file
from crucible_lineage.pipeline.inputs.existing import existing_dataset
from crucible_lineage.provenance.recipe import derived_mfid, recipe_sha256
from crucible_lineage.refs import DatasetRef, file_stem
from crucible_lineage.registration.read import find_by_recipe
from crucible_lineage.tasks.dropin.arguments import Arguments
from crucible_lineage.tasks.dropin.dataset import METADATA, linked, registered
from crucible_lineage.tasks.dropin.description import cache_keyword
from crucible_lineage.tasks.dropin.origins import Made, Origin, settled
from crucible_lineage.tasks.dropin.output_paths import files_written, learned, paths_of, placed, related
from crucible_lineage.tasks.dropin.recording import data_folder
from crucible_lineage.tasks.dropin.result import (
    RESULT,
    TaskResult,
    about_of,
    call_label,
    inputs_of,
    recipe_of,
    slots_of,
    used_datasets,
)
from crucible_lineage.tasks.dropin.secret import hidden_text, holds_secret
from crucible_lineage.tasks.dropin.values.storing import (
    Document,
    NotStorableError,
    Stored,
    copied,
    described_only,
    digest_of,
    digest_of_hashes,
    equal,
    flat,
    loaded,
    parts_of,
    put_back,
    returned_paths,
    store_value,
)


def take(result: TaskResult, value: object) -> bool:
    """Store the result, and register it beside the flow; whatever takes it as an argument is made of it.

    False if there is none: no value, and nothing written.
    """
    recording, origins = result.recording, result.recording.origins
    written = files_written(result, returned_paths(value))
    if value is None and not written and result.addresses:
        value = {"addresses": [hidden_text(address) for address in result.addresses]}
    folder = Path(tempfile.mkdtemp(prefix=file_stem(result.described.name), dir=data_folder(recording)))
    stored = _stored(result, value, folder, written)
    if stored is None:
        shutil.rmtree(folder)
        return False
    inputs = inputs_of(result, written)
    ended = datetime.now(UTC)
    made = recording.later(
        lambda: registered(result, stored, inputs, folder, set(written), ended),
        result.logger,
        f"the result of {result.described.name}",
        result.held,
    )
    about = about_of(inputs) or (f"{result.described.name} {stored.digest[:16]}",)
    names = tuple(file.ref.name for file in stored.files)
    origin = Origin(made, names, stored.digest, about, bool(stored.described), call_label(result))
    _note_value(result, value, stored, origin)
    for part, names in stored.parts:
        _note_part(result, part, names, stored, origin)
    for path in (*stored.outside, *(one for paths in written.values() for one in paths)):
        name = next(file for file in stored.files if file.ref.sha256 == recording.session.store.checksums(path).sha256)
        of_file = Origin(made, (name.ref.name,), about=about, label=origin.label)
        origins.note_path(path, name.ref.sha256, of_file)
    if recording.shared:
        _note_for_others(result, origin, made)
    return True


def _note_value(result: TaskResult, value: object, stored: Stored, origin: Origin) -> None:
    """Note the dataset of a whole result by the task run, by its words, by its key and by its content."""
    origins = result.recording.origins
    if result.output == "out":
        origins.note_run(result.task_run_id, origin)
        origins.note_words(result.task_run_id, value)
        if result.key:
            origins.note_key(result.key, origin)
    if not stored.described:
        origins.note_content(stored.digest, sum(file.ref.size for file in stored.files), origin)


def _note_part(result: TaskResult, part: object, names: Collection[str], stored: Stored, whole: Origin) -> None:
    """Note the dataset of a part of a result, which is in the files of these names (none: in all), by its content."""
    origins = result.recording.origins
    by_name = {file.ref.name: file for file in stored.files}
    files = tuple(by_name[name] for name in names) or stored.files
    described = any(file.ref.name in stored.described for file in files)
    names = tuple(file.ref.name for file in files)
    origin = Origin(whole.made, names, digest_of(files), whole.about, described, whole.label)
    if not (id(part) in result.arguments.given and isinstance(part, (str, bytes, int, float))):
        origins.note_object(part, origin)
    origins.note_items(part, origin, result.arguments.given)
    if not described and len(files) < len(stored.files):
        origins.note_content(origin.digest, sum(file.ref.size for file in files), origin)


def reused(result: TaskResult) -> tuple[Any] | None:
    """The value that the same call gave earlier, in a tuple; None if there is none, or none that can be relied on."""
    arguments, recording = result.arguments, result.recording
    if arguments.opaque or not arguments.inputs or recording.undelivered.is_away():
        return None
    inputs = inputs_of(result, dict.fromkeys(learned(result), ()))
    if not inputs:
        return None
    session = recording.session
    used = used_datasets(inputs)
    recipe = recipe_of(result, used, set(learned(result)), None)
    key = derived_mfid(recipe)

    def is_it(found: Mapping[str, Any]) -> bool:
        called = {**found, "params": {name: one for name, one in found["params"].items() if name != RESULT}}
        return recipe_sha256(called) == recipe_sha256(recipe)

    dataset = session.mirror.known(key) or find_by_recipe(session.client, key, result.project, is_it)
    if dataset is None:
        return None
    dataset = linked(dataset, used, session)
    told = (session.client.metadata.get(dataset.mfid) or {}).get(METADATA) or {}
    if "value" not in told:
        return None
    document = placed(told["value"], arguments.places)
    value = _brought_back(result, dataset, document, told.get("written", ()))
    session.mirror.trust({key: dataset})
    about = about_of(inputs)
    recording.slots.rely(result.project, slots_of(result, about), dataset, made=False)
    origin = Origin(settled(dataset), tuple(file.name for file in dataset.files), told.get("digest", ""), about)
    recording.origins.note_run(result.task_run_id, origin)
    shas = {file.name: file.sha256 for file in dataset.files}
    for part, names in parts_of(document, value):
        digest = digest_of_hashes(shas[name] for name in names) if names else origin.digest
        recording.origins.note_object(part, Origin(origin.made, names or origin.files, digest, about))
    recording.origins.note_content(origin.digest, sum(file.size for file in dataset.files), origin)
    for path in paths_of(document, told, arguments.places):
        recording.origins.note_path(path, session.store.checksums(path).sha256, origin)
    recording.made.append(origin.made)
    if recording.shared:
        _note_for_others(result, origin, origin.made)
    return (value,)


def _brought_back(
    result: TaskResult, dataset: DatasetRef, document: Document, written: Iterable[tuple[str, str, str]]
) -> object:
    """Return the value of an earlier result, and put the files that it wrote back to where they were."""
    with tempfile.TemporaryDirectory(dir=data_folder(result.recording)) as name:
        folder = Path(name)
        for file in dataset.files:
            place_file(dataset, file, folder / file.name, result.recording.session)
        value = loaded(document, folder) if document else None
        for role, place, file_name in written:
            root = result.arguments.places[role]
            put_back(folder / file_name, root / place if place else root)
    return value


def found_in_cache(result: TaskResult, value: object, key: str) -> None:
    """Link what Prefect's cache gave back, as the result that was stored under the key."""
    recording, origins = result.recording, result.recording.origins
    origin = origins.of_object(value)
    if origin is None:
        with tempfile.TemporaryDirectory(dir=data_folder(recording)) as folder:
            digest = _stored_or_described(value, Path(folder)).digest
        origin = origins.of_key(key, digest) or _of_key(result, key, digest)
    if origin is None:
        result.logger.warning(
            "no parent known for the result of %s: Prefect's cache has it from a run that registered nothing; "
            "run it once with refresh_cache=True",
            result.described.name,
        )
        take(replace(result, arguments=Arguments(params=result.arguments.params)), value)
        return
    recording.reused += 1
    origins.note_run(result.task_run_id, origin)
    origins.note_words(result.task_run_id, value)
    origins.note_object(value, origin)
    origins.note_key(key, origin)
    about = about_of(inputs_of(result, {}))
    recording.slots.rely(result.project, slots_of(result, about), recording.dataset(origin.made), made=False)
    recording.made.append(origin.made)


def _of_key(result: TaskResult, key: str, digest: str) -> Origin | None:
    """The dataset that Prefect's cache has under this key, if it has this content, as an earlier run registered it."""
    session = result.recording.session
    if result.recording.undelivered.is_away():
        return None
    listed = session.client.datasets.list(
        project_id=result.project, keyword=cache_keyword(key), include_metadata=True, limit=None
    )
    same = [one for one in listed if (one.scientific_metadata or {}).get(METADATA, {}).get("digest") == digest]
    if not same:
        return None
    dataset = existing_dataset(same[-1].unique_id, session)
    about = result.recording.slots.about(dataset.mfid)
    names = tuple(file.name for file in dataset.data_files)
    return Origin(settled(dataset), names, digest, about, label=call_label(result))


def _stored_or_described(value: object, folder: Path, given: Collection[Path] = ()) -> Stored:
    try:
        return store_value(value, folder, given=frozenset(given))
    except NotStorableError as error:
        return described_only(value, folder, str(error))


def _stored(result: TaskResult, value: object, folder: Path, written: Mapping[str, list[Path]]) -> Stored | None:
    """The value and the files that were written, as files; None if there is neither."""
    if value is None and not written:
        return None
    if value is None:
        stored = Stored({}, ())
    else:
        stored = _stored_or_described(value, folder, result.arguments.places.values())
        if any(holds_secret(file.path) for file in stored.files):
            for file in stored.files:
                file.path.unlink()
            stored = described_only("", folder, "a value that holds a secret")
            result.logger.warning("the result of %s holds a secret; it is described, not stored", result.described.name)
        elif stored.described:
            result.logger.warning(
                "the result of %s is%s %s, which is described and not stored; crucible_lineage.tasks.add_kind says how "
                "to store it",
                result.described.name,
                "" if stored.document["kind"] == "description" else " or holds",
                ", ".join(dict.fromkeys(stored.described.values())),
            )
    files, places = list(stored.files), []
    for role, paths in written.items():
        root = result.arguments.places[role]
        for path in paths:
            place = path.relative_to(root).as_posix() if path != root else ""
            if path in stored.outside:
                sha256 = result.recording.session.store.checksums(path).sha256
                name = next(file.ref.name for file in stored.files if file.ref.sha256 == sha256)
            else:
                name = flat(path.relative_to(root)) if path != root else path.name
                name = name if name not in {file.ref.name for file in files} else f"{role}-{name}"
                files.append(copied(path, folder, name))
            places.append([role, place, name])
    document: Document = {
        "value": related(stored.document, result.arguments.places),
        **({"written": places} if places else {}),
    }
    exact = result.wants_reuse and _is_exact(stored, value, folder)
    return replace(stored, document=document, files=tuple(files), exact=exact)


def _is_exact(stored: Stored, value: object, folder: Path) -> bool:
    """True if what is stored is read again as the value that it was."""
    try:
        return not stored.document or equal(loaded(stored.document, folder), value)
    except Exception:  # it cannot be read again, whatever the reason
        return False


def _note_for_others(result: TaskResult, origin: Origin, made: Made) -> None:
    """Other processes of this flow run find it, once it is registered."""

    def note(done: Made) -> None:
        if done.exception() is None:
            notes = result.recording.origins.notes
            if result.output == "out" and result.task_run_id:
                notes.write(f"run-{result.task_run_id}", origin)
            if not origin.described:
                notes.write(f"content-{origin.digest}", origin)

    made.add_done_callback(note)
