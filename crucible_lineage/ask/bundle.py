"""Write a bundle: a result with its ancestors, as an RO-Crate in a ZIP file.

It has files, records, pictures and RO-Crate metadata; `verify.py`, which checks it offline and shows its records; and
`reproduce.py`, which remakes it.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from crucible_lineage import __version__
from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.lineages import fetch_lineage, with_named_parents, with_whole_records
from crucible_lineage.errors import FAILURE, ForbiddenError, InputError, NotFoundError, require_library
from crucible_lineage.json_types import mapping, text
from crucible_lineage.lineage.crate import make_crate
from crucible_lineage.lineage.crate_data import METADATA, PREVIEW, CrateHeader, TextFile, utf8
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import nodes_text
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.page import render_html, thumbnail_in
from crucible_lineage.lineage.prov import StoredFile, exported, shareable, shared_record, with_hidden_parents
from crucible_lineage.lineage.records import Rights, provenance, stated_rights
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.lineage.text import public_ids
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.machine.process import in_threads
from crucible_lineage.pipeline.plan.fetch import LOST
from crucible_lineage.provenance.record import ATTACHED_NAME, read_record
from crucible_lineage.remake.kit import DRIVER, KitStep, kept_bytes, write_kit
from crucible_lineage.server.database import instance_id
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount, size_text

FORMAT = "crucible-lineage/bundle/1"
PICTURE, LIST, CHECKER = "lineage.svg", "bundle.json", "verify.py"
_CHECKING = (
    TextFile(LIST, "what is in this bundle, with the SHA-256 of each file", ""),
    TextFile(CHECKER, "checks this bundle: python verify.py", ""),
)


class _Stored(NamedTuple):
    """The files of one dataset: those with their bytes, and those without, with the reason."""

    files: tuple[StoredFile, ...] = ()
    absent: tuple[tuple[StoredFile, str], ...] = ()


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
        part.mkdir()
        stored = _download(session, graph, part)
        records = {}
        for node in _datasets(shareable(graph)):
            content = json.dumps(shared_record(node), indent=1, ensure_ascii=False) + "\n"
            records[node.id] = TextFile(f"records/{node.id}.json", f"record of {node.name or node.id}", content)
            _write(part, records[node.id].path, content)
        own = [*records.values(), *_write_kit(session, graph, mfid, stored, part)]
        header = _header(session, graph, mfid)
        metadata_files = _write_metadata(graph, part, stored, header, [*own, *_CHECKING])
        others = [{"path": file.path, "sha256": file_sha256(part / file.path)} for file in [*own, *metadata_files]]
        entries = {**_bundle_list(graph, mfid, stored, records), "others": others}
        _write(part, LIST, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
        checker = resources.files("crucible_lineage.lineage").joinpath("verify_bundle.py")
        _write(part, CHECKER, checker.read_text(encoding="utf-8"))
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in part.rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(part).as_posix())
        packed.replace(target)
        return _report(target, graph, stored, file_sha256(part / LIST))


def _write_metadata(
    graph: LineageGraph, folder: Path, stored: Mapping[str, _Stored], header: CrateHeader, more: Sequence[TextFile]
) -> list[TextFile]:
    """Write the metadata, pictures and code into the folder. Returns the files written."""
    shown = shareable(graph)
    command = f"python {DRIVER}" if any(file.path == DRIVER for file in more) else ""
    figure = (thumbnail_in(shown.node(header.about).record) or "") if command else ""
    page = render_html(shown, header.about, figure=figure, reproduce=command)
    pictures = [
        TextFile(PICTURE, "a drawing of the lineage", render_svg(shown, header.about)),
        TextFile(PREVIEW, "the lineage as a page to explore", page),
    ]
    stored_files = {name: (*kept.files, *(file for file, _ in kept.absent)) for name, kept in stored.items()}
    document, files = make_crate(exported(graph, stored_files, header.projects), header, [*pictures, *more])
    metadata = TextFile(METADATA, "RO-Crate metadata", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    written = [file for file in (metadata, *files) if file not in more]
    for file in written:
        _write(folder, file.path, file.text)
    return written


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
        version=__version__,
        projects=projects,
        about=mfid,
        publisher=organizations.get(text(node.record.get("project_id")), "") if node.record else "",
    )


def _download(session: Session, graph: LineageGraph, folder: Path) -> dict[str, _Stored]:
    """Download the files of all visible datasets into `data/MFID/` of the folder."""
    withheld = {mfid for mfid, node in shareable(graph).nodes.items() if "withheld" in provenance(node.record)}

    def fetch(mfid: str) -> tuple[str, _Stored]:
        files, absent = [], []
        for record in session.client.files.list(mfid):
            if mfid in withheld and record.filename == ATTACHED_NAME:
                continue
            try:
                target = session.client.files.download(record, folder / "data" / mfid)
            except LOST as error:
                absent.append((StoredFile(record.filename, record.sha256_hash or "", record.size), str(error)))
                continue
            path = target.relative_to(folder).as_posix()
            files.append(StoredFile(record.filename, file_sha256(target), target.stat().st_size, path))
        return mfid, _Stored(tuple(files), tuple(absent))

    return dict(in_threads(fetch, [node.id for node in _datasets(graph)]))


def _write_kit(
    session: Session, graph: LineageGraph, mfid: str, stored: Mapping[str, _Stored], folder: Path
) -> list[TextFile]:
    """Write what is needed to remake the results, and the program for it, without what names hidden datasets."""
    outputs = []
    for node in _datasets(shareable(graph)):
        metadata = mapping(mapping(node.record).get("scientific_metadata"))
        record = None if "withheld" in provenance(node.record) else read_record(metadata)
        step = record.as_step if record is not None else None
        if step is not None and step.is_whole:
            outputs.append(KitStep(node.id, step, metadata))
    if not outputs:
        return []
    files = {(mfid, file.name, file.sha256): folder / file.path for mfid, kept in stored.items() for file in kept.files}
    written = write_kit(
        *(folder, mfid, outputs, lambda owner, file: files.get((owner, file.name, file.sha256))),
        lambda kept: kept_bytes(session, kept),
    )
    names = [path.relative_to(folder).as_posix() for path in written]
    return [TextFile(name, "remakes the results" if name == DRIVER else "for reproduce.py", "") for name in names]


def _bundle_list(
    graph: LineageGraph, mfid: str, stored: Mapping[str, _Stored], records: Mapping[str, TextFile]
) -> dict[str, object]:
    """Return the contents of the bundle, as `verify.py` reads them."""
    names = public_ids(graph)
    return {
        "format": FORMAT,
        "about": mfid,
        "made_by": f"crucible-lineage {__version__}",
        "datasets": [
            {
                "mfid": node.id,
                "name": node.name,
                "record": records[node.id].path,
                "files": [asdict(file) for file in stored[node.id].files],
                "absent": [{**asdict(file), "why": reason} for file, reason in stored[node.id].absent],
            }
            for node in _datasets(graph)
        ],
        "samples": [{"mfid": node.id, "name": node.name} for node in graph.nodes.values() if node.kind == "sample"],
        "hidden": [{"mfid": names[mfid]} for mfid in graph.nodes if mfid in graph.hidden],
        "links": [
            {"parent": names[edge.source], "child": names[edge.target], "relationship": edge.relationship}
            for edge in graph.edges.values()
        ],
    }


def _datasets(graph: LineageGraph) -> Iterator[Node]:
    return (node for node in graph.nodes.values() if node.kind == "dataset")


def _report(output: Path, graph: LineageGraph, stored: Mapping[str, _Stored], list_sha256: str) -> Done:
    """Report a bundle, and the unavailable files with the reasons."""
    files = [file for kept in stored.values() for file in kept.files]
    datasets, size = len([*_datasets(graph)]), sum(file.size or 0 for file in files)
    absent = [f"{mfid}: {reason}" for mfid, kept in stored.items() for _, reason in kept.absent]
    document = {
        "output": output, "datasets": datasets, "hidden": len(graph.hidden), "files": len(files), "bytes": size,
        "absent": absent, "list_sha256": list_sha256,
    }  # fmt: skip
    lines = [
        f"{output}: {amount(datasets, 'dataset')}, {amount(len(files), 'file')}, {size_text(size)}",
        f"SHA-256 of its bundle.json: {list_sha256}",
        "to check it, unpack it and run: python verify.py",
    ]
    hidden = f"left out, and listed as hidden: {amount(len(graph.hidden), 'parent')} that this key cannot see"
    warnings = [*([hidden] if graph.hidden else ()), *(f"not included: {line}" for line in absent)]
    return Done(document, lines, FAILURE if absent else 0, warnings)


def _write(folder: Path, path: str, content: str) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(utf8(content))
