"""Write a bundle: a result with its ancestors, as an RO-Crate in a ZIP file.

It has files, records, pictures and RO-Crate metadata; a list of their SHA-256, which `sha256sum -c` checks; and
`reproduce.py`, which remakes the result.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.lineages import fetch_lineage, with_named_parents, with_whole_records
from crucible_lineage.errors import FAILURE, ForbiddenError, InputError, NotFoundError, require_library
from crucible_lineage.json_types import mapping, text
from crucible_lineage.lineage.crate import METADATA, PREVIEW, CrateHeader, TextFile, make_crate, utf8
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import nodes_text
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.page import render_html, thumbnail_in
from crucible_lineage.lineage.prov import StoredFile, exported, shareable, shared_record, with_hidden_parents
from crucible_lineage.lineage.records import Rights, provenance, stated_rights
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.machine.process import in_threads
from crucible_lineage.pipeline.plan.fetch import LOST
from crucible_lineage.provenance.record import ATTACHED_NAME, read_record
from crucible_lineage.refs import FileRef
from crucible_lineage.remake.kit import DRIVER, MANIFEST, RECORDS, KitStep, kept_bytes, write_kit
from crucible_lineage.server.database import instance_id
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount, size_text

PICTURE = "lineage.svg"
Stored = Mapping[str, Sequence[StoredFile]]  # by dataset; without a path those whose bytes are lost


def to_share(session: Session, graph: LineageGraph) -> LineageGraph:
    """Return a lineage with complete records, and a node for each parent hidden from this key."""
    return with_whole_records(session, with_hidden_parents(with_named_parents(session, graph)))


def write_bundle(session: Session, mfid: str, target: Path) -> Done:
    """Write a new ZIP file with the dataset and its ancestors. Raises InputError if it exists, or without `rocrate`."""
    if target.exists():
        raise InputError(f"write a bundle to {target}: the file already exists; name a new one")
    require_library("a bundle", "rocrate", "export")
    graph = to_share(session, fetch_lineage(session, mfid, thumbnails=True)).around(mfid, direction="ancestors")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        part, packed = Path(draft, "contents"), Path(draft, "packed")  # the target is complete or absent
        shown = shareable(graph)
        stored = _download(session, shown, part)
        for file in _texts(session, graph, shown, mfid, stored, part):
            if file.text:  # others are written already, or below
                path = part / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(utf8(file.text))
        names = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())
        manifest = part / MANIFEST
        manifest.write_bytes("".join(f"{file_sha256(part / name)}  {name}\n" for name in names).encode())
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in (MANIFEST, *names):
                archive.write(part / name, name)
        packed.replace(target)
        return _report(target, graph, stored, file_sha256(manifest))


def _texts(
    session: Session, graph: LineageGraph, shown: LineageGraph, mfid: str, stored: Stored, folder: Path
) -> list[TextFile]:
    """Return the files other than data; those of the kit, without a text, are in the folder."""
    extras = [
        TextFile(
            f"{RECORDS}/{node.id}.json",
            f"record of {node.name or node.id}",
            json.dumps(shared_record(node), indent=1, ensure_ascii=False) + "\n",
        )
        for node in _datasets(shown)
    ]
    kit = _write_kit(session, shown, mfid, stored, folder)
    figure = (thumbnail_in(shown.node(mfid).record) or "") if kit else ""
    extras += [
        TextFile(PICTURE, "a drawing of the lineage", render_svg(shown, mfid)),
        TextFile(
            *(PREVIEW, "the lineage as a page to explore"),
            render_html(shown, mfid, figure=figure, reproduce=f"python {DRIVER}" if kit else ""),
        ),
        *kit,
        TextFile(MANIFEST, f"the SHA-256 of each file; to check them: sha256sum -c {MANIFEST}", ""),
    ]
    header = _header(session, graph, mfid)
    document, texts = make_crate(exported(graph, stored, header.projects), header, extras)
    metadata = TextFile(METADATA, "RO-Crate metadata", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return [metadata, *texts]


def _header(session: Session, graph: LineageGraph, mfid: str) -> CrateHeader:
    node, settings = graph.node(mfid), session.settings
    names = {text(node.record.get("project_id")) for node in graph.nodes.values() if node.record} - {""}
    projects: dict[str, Rights] = {}  # as far as this key can see them
    organizations = {}
    for name in sorted(names):
        with suppress(NotFoundError, ForbiddenError):
            project = session.client.projects.get(name)
            projects[name] = stated_rights(session.client.metadata.get(project.unique_id))
            organizations[name] = project.organization or project.title or ""
    instance = f"urn:crucible-lineage:instance:{instance_id(settings.data / 'crucible')}"
    return CrateHeader(
        name=node.name or mfid,
        description=f"The dataset {mfid} ({node.name}) with its lineage: {nodes_text(len(graph))}.",
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        crucible_name="an embedded Crucible" if settings.embedded else f"Crucible at {settings.api_url}",
        crucible_url=instance if settings.embedded else str(settings.api_url),
        projects=projects,
        about=mfid,
        publisher=organizations.get(text(node.record.get("project_id")), "") if node.record else "",
    )


def _download(session: Session, shown: LineageGraph, folder: Path) -> dict[str, list[StoredFile]]:
    """Download the files of all visible datasets into `data/MFID/` of the folder."""

    def fetch(node: Node) -> tuple[str, list[StoredFile]]:
        files = []
        for record in session.client.files.list(node.id):
            if record.filename == ATTACHED_NAME and "withheld" in provenance(node.record):
                continue
            try:
                target = session.client.files.download(record, folder / "data" / node.id)
            except LOST as error:
                files.append(StoredFile(record.filename, record.sha256_hash or "", record.size, why_absent=str(error)))
                continue
            path = target.relative_to(folder).as_posix()
            files.append(StoredFile(record.filename, file_sha256(target), target.stat().st_size, path))
        return node.id, files

    return dict(in_threads(fetch, list(_datasets(shown))))


def _write_kit(session: Session, shown: LineageGraph, mfid: str, stored: Stored, folder: Path) -> list[TextFile]:
    """Write what is needed to remake the results, and the program for it, without what names hidden datasets."""
    outputs = []
    for node in _datasets(shown):
        metadata = mapping(mapping(node.record).get("scientific_metadata"))
        record = read_record(metadata)
        step = record.as_step if record is not None else None
        if step is not None and step.is_whole:
            outputs.append(KitStep(node.id, step, metadata))
    if not outputs:
        return []
    paths = {(mfid, file.name, file.sha256): file.path for mfid, files in stored.items() for file in files}

    def file_of(owner: str, file: FileRef) -> Path | None:
        path = paths.get((owner, file.name, file.sha256))
        return folder / path if path else None

    written = write_kit(folder, mfid, outputs, file_of, lambda kept: kept_bytes(session, kept))
    names = [path.relative_to(folder).as_posix() for path in written]
    return [TextFile(name, "remakes the results" if name == DRIVER else "for reproduce.py", "") for name in names]


def _datasets(graph: LineageGraph) -> Iterator[Node]:
    return (node for node in graph.nodes.values() if node.kind == "dataset")


def _report(output: Path, graph: LineageGraph, stored: Stored, manifest_sha256: str) -> Done:
    """Report a bundle, and the unavailable files with the reasons."""
    files = [file for own in stored.values() for file in own if file.path]
    datasets, size = len([*_datasets(graph)]), sum(file.size or 0 for file in files)
    absent = [f"{mfid}: {file.why_absent}" for mfid, own in stored.items() for file in own if file.why_absent]
    document = {
        "output": output, "datasets": datasets, "hidden": len(graph.hidden), "files": len(files), "bytes": size,
        "absent": absent, "manifest_sha256": manifest_sha256,
    }  # fmt: skip
    lines = [
        f"{output}: {amount(datasets, 'dataset')}, {amount(len(files), 'file')}, {size_text(size)}",
        f"SHA-256 of its {MANIFEST}: {manifest_sha256}",
        f"to check it, unpack it and run: sha256sum -c {MANIFEST}",
    ]
    hidden = f"left out, and listed as hidden: {amount(len(graph.hidden), 'parent')} that this key cannot see"
    warnings = [*([hidden] if graph.hidden else ()), *(f"not included: {line}" for line in absent)]
    return Done(document, lines, FAILURE if absent else 0, warnings)
