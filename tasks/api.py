"""A task for each step of Crucible's API: datasets, samples and projects, metadata and keywords, files and lineages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.ask.verify import Verification, verify_dataset
from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.contents import Picture, picture_body
from crucible_lineage.client.models import (
    Dataset,
    DatasetCreate,
    FileRecord,
    IngestionRequest,
    Project,
    Sample,
    SearchHit,
    Thumbnail,
)
from crucible_lineage.errors import ConflictError, InputError, NotFoundError, RunError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.graph import Direction
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import existing_dataset, hash_files, raw_files, register_raw
from crucible_lineage.refs import CORRECTED, DERIVED, Relationship
from crucible_lineage.registration.read import lies_elsewhere
from crucible_lineage.tasks.artifacts import lineage_artifact
from crucible_lineage.tasks.recording import run_logger
from crucible_lineage.tasks.sessions import Crucible, api_task, chosen_mfid, session_for, words
from crucible_lineage.text.amounts import amount

Paths = str | Path | Sequence[str | Path]
OnFailure = Literal["fail", "warn"]
"""Whether a failed ingestion fails the task or is a warning in its log."""
GOOD = ("complete", "not_requested")


@api_task("create {dataset_name}")
def create_dataset(
    dataset_name: str,
    project_id: str | None = None,
    *,
    measurement: str | None = None,
    data_type: str | None = None,
    data_format: str | None = None,
    session_name: str | None = None,
    timestamp: str | datetime | None = None,
    public: bool = False,
    owner_orcid: str | None = None,
    instrument_name: str | None = None,
    instrument_id: str | None = None,
    dsid: str | None = None,
    scientific_metadata: JsonMapping | None = None,
    keywords: str | Sequence[str] = (),
    files: Paths = (),
    parents: str | Sequence[str] = (),
    samples: str | Sequence[str] = (),
    ingestor: str | None = None,
    wait_for_ingestion: bool = False,
    on_failed_ingestion: OnFailure = "fail",
    crucible: Crucible | None = None,
) -> str:
    """Create a dataset with these fields and contents, request ingestion of each of the `files`, and return its MFID.

    Safe to repeat: the MFID follows from the flow run, the task and its arguments (or is `dsid`), so a retried task or
    flow finds and completes what it made. Nothing is undone if a later part fails. Raises InputError, before anything
    is created, if a file is missing; ConflictError if `dsid` is another dataset.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("dsid", "crucible")}
    checked_files(files)
    fields = {name: arguments[name] for name in DatasetCreate.model_fields if arguments.get(name) is not None}
    client = session_for(crucible).client
    mfid = _create(client, {"unique_id": dsid or chosen_mfid("dataset", arguments), **fields})
    if scientific_metadata:
        client.metadata.merge(mfid, scientific_metadata)
    for keyword in words(keywords):
        client.datasets.add_keyword(mfid, keyword)
    for parent in words(parents):
        client.datasets.link_parent_child(parent, mfid, relationship_type=DERIVED)
    for sample in words(samples):
        client.datasets.add_sample(mfid, sample)
    add_files.fn(
        mfid,
        files,
        ingestor=ingestor,
        wait_for_ingestion=wait_for_ingestion,
        on_failed_ingestion=on_failed_ingestion,
        crucible=crucible,
    )
    return mfid


@api_task("get {dsid}")
def get_dataset(
    dsid: str, include_metadata: bool = False, include_links: bool = False, *, crucible: Crucible | None = None
) -> Dataset:
    """Get a dataset. Its `scientific_metadata` and `links` are None unless they are requested."""
    return session_for(crucible).client.datasets.get(
        dsid, include_metadata=include_metadata, include_links=include_links
    )


@api_task("list datasets")
def list_datasets(*, limit: int | None = None, crucible: Crucible | None = None, **filters: object) -> list[Dataset]:
    """List the datasets that match all filters, newest first unless sorted otherwise, all or `limit` of them."""
    return session_for(crucible).client.datasets.list(limit=limit, **filters)


@api_task("search {q}")
def search_datasets(
    q: str, limit: int = 20, *, project_id: str | None = None, crucible: Crucible | None = None
) -> list[Dataset]:
    """Find datasets whose name is like `q` (3 letters or more); best first, at most 50."""
    return list(session_for(crucible).client.datasets.search(q, limit=limit, project_id=project_id))


@api_task("count datasets")
def count_datasets(*, crucible: Crucible | None = None, **filters: object) -> int:
    """Count the datasets that match all filters."""
    return session_for(crucible).client.datasets.count(**filters)


@api_task("update {dsid}")
def update_dataset(dsid: str, *, crucible: Crucible | None = None, **fields: object) -> Dataset:
    """Change these fields of a dataset and return it."""
    return session_for(crucible).client.datasets.update(dsid, **fields)


@api_task("delete {dsid}")
def delete_dataset(dsid: str, reason: str | None = None, *, crucible: Crucible | None = None) -> int:
    """Request deletion of a dataset and return the request's number. It is hidden at once and deleted after a review.

    If a request is open already, return that one.
    """
    client = session_for(crucible).client
    try:
        return client.datasets.delete(dsid, reason).id
    except ConflictError:
        open_request = client.datasets.get(dsid).deletion_request
        if open_request is None:
            raise
        return open_request.id


def _create(client: CrucibleClient, fields: Mapping[str, object]) -> str:
    """Create a dataset and return its MFID. An existing one of the same name and project is from an earlier attempt."""
    mfid = str(fields["unique_id"])
    try:
        return client.datasets.create(fields).dsid
    except ConflictError:
        existing = client.datasets.get(mfid)
        project = str(fields.get("project_id") or existing.project_id or "")
        if existing.dataset_name != fields["dataset_name"] or lies_elsewhere(existing, project):
            raise
        return mfid


@api_task("metadata of {dsid}")
def get_metadata(dsid: str, *, crucible: Crucible | None = None) -> JsonObject:
    """Return the scientific metadata of the dataset; empty if it has none."""
    return session_for(crucible).client.metadata.get(dsid) or {}


@api_task("update metadata of {dsid}")
def update_metadata(dsid: str, metadata: JsonMapping, *, crucible: Crucible | None = None) -> JsonObject:
    """Merge `metadata` into that of the dataset and return all of it: objects key by key, others replaced."""
    return session_for(crucible).client.metadata.merge(dsid, metadata)


@api_task("replace metadata of {dsid}")
def replace_metadata(dsid: str, metadata: JsonMapping, *, crucible: Crucible | None = None) -> JsonObject:
    """Replace all metadata of the dataset. The result of a step would lose its provenance."""
    return session_for(crucible).client.metadata.replace(dsid, metadata)


@api_task("search metadata for {q}")
def search_metadata(q: str, limit: int = 20, *, crucible: Crucible | None = None) -> list[SearchHit]:
    """Find resources of any kind whose metadata contains all words of `q` in keys or values, best first, at most 50."""
    return session_for(crucible).client.metadata.search(q, limit=limit)


@api_task("add keywords to {dsid}")
def add_keywords(dsid: str, keywords: str | Sequence[str], *, crucible: Crucible | None = None) -> list[str]:
    """Add keywords and return them; a string is one keyword. Adding one again changes nothing."""
    client = session_for(crucible).client
    return [client.datasets.add_keyword(dsid, keyword).keyword for keyword in words(keywords)]


@api_task("keywords of {dsid}")
def get_keywords(dsid: str, *, crucible: Crucible | None = None) -> list[str]:
    """Return the keywords of the dataset."""
    return [record.keyword for record in session_for(crucible).client.datasets.get_keywords(dsid)]


@api_task("link {parent_id} to {child_id}")
def link_parent_child(
    parent_id: str,
    child_id: str,
    relationship_type: Relationship | None = DERIVED,
    *,
    crucible: Crucible | None = None,
) -> None:
    """Link a child to a parent; None as relationship keeps a stored one."""
    session_for(crucible).client.datasets.link_parent_child(parent_id, child_id, relationship_type)


@api_task("unlink {parent_id} from {child_id}")
def unlink(parent_id: str, child_id: str, *, crucible: Crucible | None = None) -> None:
    """Remove the link between two datasets, if there is one. Raises NotFoundError if a dataset does not exist."""
    datasets = session_for(crucible).client.datasets
    try:
        datasets.unlink(parent_id, child_id)
    except NotFoundError:
        _ = datasets.get(child_id), datasets.get(parent_id)  # both exist, so only the link is missing


@api_task("parents of {dsid}")
def list_parents(
    dsid: str, *, relationship_type: Relationship | None = None, crucible: Crucible | None = None
) -> list[Dataset]:
    """List the datasets that this one was made from."""
    return list(session_for(crucible).client.datasets.list_parents(dsid, relationship_type=relationship_type))


@api_task("children of {dsid}")
def list_children(
    dsid: str, *, relationship_type: Relationship | None = None, crucible: Crucible | None = None
) -> list[Dataset]:
    """List the datasets that were made from this one."""
    return list(session_for(crucible).client.datasets.list_children(dsid, relationship_type=relationship_type))


@api_task("create sample {sample_name}")
def create_sample(
    sample_name: str,
    project_id: str | None = None,
    *,
    sample_type: str | None = None,
    description: str | None = None,
    timestamp: str | datetime | None = None,
    public: bool = False,
    crucible: Crucible | None = None,
) -> str:
    """Create a sample with these fields and return its MFID. A retry returns the same one."""
    fields: JsonObject = {name: value for name, value in locals().items() if name != "crucible"}
    mfid = chosen_mfid("sample", fields)
    client = session_for(crucible).client
    try:
        return client.samples.create(unique_id=mfid, **fields).unique_id
    except ConflictError:
        return client.samples.get(mfid).unique_id


@api_task("sample {sample_id} of {dsid}")
def link_sample(dsid: str, sample_id: str, *, crucible: Crucible | None = None) -> None:
    """Associate the dataset with the sample."""
    session_for(crucible).client.datasets.add_sample(dsid, sample_id)


@api_task("remove sample {sample_id} of {dsid}")
def unlink_sample(dsid: str, sample_id: str, *, crucible: Crucible | None = None) -> None:
    """Remove the association of dataset and sample, if there is one. Raises NotFoundError if either does not exist."""
    client = session_for(crucible).client
    try:
        client.datasets.remove_sample(dsid, sample_id)
    except NotFoundError:
        _ = client.datasets.get(dsid), client.samples.get(sample_id)  # both exist, so only the link is missing


@api_task("samples of {dsid}")
def list_samples(dsid: str, *, crucible: Crucible | None = None) -> list[Sample]:
    """List the samples that the dataset is associated with."""
    return session_for(crucible).client.samples.list(dataset_mfid=dsid)


@api_task("project {project_id}")
def ensure_project(project_id: str, title: str | None = None, *, crucible: Crucible | None = None) -> str:
    """Create the project in an embedded Crucible if need be. Elsewhere, raise InputError if it is missing."""
    session_for(crucible).ensure_project(project_id, title)
    return project_id


@api_task("list projects")
def list_projects(*, limit: int | None = None, crucible: Crucible | None = None) -> list[Project]:
    """List the projects that the key may see."""
    return session_for(crucible).client.projects.list(limit=limit)


# ---------------------------------------------------------------- files


@api_task("upload {path} to {dsid}")
def upload_file(
    dsid: str, path: str | Path, *, filename: str | None = None, replace: bool = False, crucible: Crucible | None = None
) -> str:
    """Upload a file to the dataset and return its MFID. A file that the dataset already has is not sent again.

    Raises FileConflictError if the dataset has other content under that name, unless `replace` is set.
    """
    client = session_for(crucible).client
    return client.files.upload(dsid, path, filename=filename, replace=replace).file.mfid


@api_task("add files to {dsid}")
def add_files(
    dsid: str,
    files: Paths,
    *,
    ingestor: str | None = None,
    wait_for_ingestion: bool = False,
    on_failed_ingestion: OnFailure = "fail",
    crucible: Crucible | None = None,
) -> list[FileRecord]:
    """Upload files to the dataset and request ingestion of each once.

    With `wait_for_ingestion`, wait until it has ended; raises RunError if it failed, unless `on_failed_ingestion` is
    "warn". Raises InputError, before anything is sent, if a file is missing or two have the same name.
    """
    client, records, requests = session_for(crucible).client, [], []
    for path in checked_files(files):
        records.append(client.files.upload(dsid, path).file)
        requests.append(request_once(client, records[-1].mfid, ingestor))
    if wait_for_ingestion:
        for request in requests:
            check_ended(client.ingestions.wait(request.id, timeout_s=600), on_failed_ingestion)
    return records


@api_task("files of {dsid}")
def list_files(dsid: str, *, crucible: Crucible | None = None) -> list[FileRecord]:
    """List the files of the dataset."""
    return session_for(crucible).client.files.list(dsid)


@api_task("download {dsid}")
def download_dataset(
    dsid: str,
    output_dir: str | Path = "crucible-downloads",
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    crucible: Crucible | None = None,
) -> list[Path]:
    """Download the dataset's files to `output_dir`/`dsid`, each checked against its record.

    `include` and `exclude` are patterns such as `*.dat`.
    """
    client = session_for(crucible).client
    return list(client.datasets.download(dsid, output_dir, include=include, exclude=exclude))


@api_task("links to the files of {dsid}", persist_result=False)
def get_download_links(dsid: str, *, crucible: Crucible | None = None) -> dict[str, str]:
    """Return download links by file MFID. Anyone can use them for about an hour, so Prefect does not store them."""
    return session_for(crucible).client.datasets.get_download_links(dsid)


def checked_files(files: Paths) -> list[Path]:
    """Return the paths as a list. Raises InputError if one is no file, or two have the same name."""
    paths = [Path(path) for path in ([files] if isinstance(files, (str, Path)) else files)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InputError(f"there is no file {', '.join(missing)}; nothing was sent")
    if duplicates := [name for name, count in Counter(path.name for path in paths).items() if count > 1]:
        raise InputError(f"two of the files are called {duplicates[0]!r}; a dataset's files have different names")
    return paths


@api_task("thumbnail of {dsid}")
def add_thumbnail(
    dsid: str, thumbnail: Picture, thumbnail_name: str | None = None, *, crucible: Crucible | None = None
) -> int:
    """Set the thumbnail of that name to a picture (image file, image bytes, or figure) and return its number.

    A thumbnail of the same name is replaced.
    """
    client = session_for(crucible).client
    body = picture_body(thumbnail, thumbnail_name, f"{dsid}_thumbnail.png")
    name, content = body["thumbnail_name"], body["thumbnail_b64str"]
    for existing in client.datasets.get_thumbnails(dsid):
        if existing.thumbnail_name == name:
            if existing.thumbnail_b64str == content:
                return existing.id
            client.datasets.delete_thumbnail(dsid, existing.id)
    picture = Path(thumbnail) if isinstance(thumbnail, str) else thumbnail
    return client.datasets.add_thumbnail(dsid, picture, name=name).id


@api_task("thumbnails of {dsid}")
def get_thumbnails(dsid: str, *, crucible: Crucible | None = None) -> list[Thumbnail]:
    """Return the thumbnails of the dataset, with their pictures in base64."""
    return session_for(crucible).client.datasets.get_thumbnails(dsid)


@api_task("ingest {file_mfid}")
def request_ingestion(
    file_mfid: str, ingestor: str | None = None, *, again: bool = False, crucible: Crucible | None = None
) -> int:
    """Request ingestion of a file and return the request's number: an existing one, or with `again` a new one.

    A failed request is never returned.
    """
    client = session_for(crucible).client
    if again:
        return client.ingestions.request(file_mfid, ingestor).id
    return request_once(client, file_mfid, ingestor).id


@api_task("ingested {request}")
def wait_for_ingestion(
    request: int, timeout_s: float = 600.0, *, on_failure: OnFailure = "fail", crucible: Crucible | None = None
) -> str:
    """Wait for an ingestion and return its final status. Raises RunError if it failed, or if the requested ingestor did
    not read the file, unless `on_failure` is "warn".
    """
    result = session_for(crucible).client.ingestions.wait(request, timeout_s=timeout_s)
    check_ended(result, on_failure)
    return result.status


def request_once(client: CrucibleClient, file_mfid: str, ingestor: str | None) -> IngestionRequest:
    """Return the file's ingestion request for that class that is open or has succeeded, else a new one."""
    for existing in client.ingestions.list(file_mfid=file_mfid):
        if (existing.is_open or existing.status in GOOD) and ingestor in (None, existing.ingestion_class):
            return existing
    return client.ingestions.request(file_mfid, ingestor)


def check_ended(request: IngestionRequest, on_failure: OnFailure) -> None:
    """Raise RunError, or warn, if the ingestion has failed."""
    by_other_ingestor = request.error_message and request.ingestion_class  # not by the requested ingestor
    if request.status in GOOD and not by_other_ingestor:
        return
    reason = f": {request.error_message}" if request.error_message else ""
    outcome = "was not done as requested" if request.status in GOOD else f"ended as {request.status!r}"
    message = (
        f"ingestion request {request.id} of file {request.file_mfid} {outcome}{reason}\n"
        'the file is stored; name an ingestor that reads it, or accept this as a warning with "warn"'
    )
    if on_failure == "fail":
        raise RunError(message)
    run_logger().warning(message)


# ---------------------------------------------------------------- whole chains


@api_task("register child of {parents}")
def register_child(
    parents: str | Sequence[str],
    files: Paths,
    *,
    dataset_name: str | None = None,
    project_id: str | None = None,
    measurement: str | None = None,
    data_type: str | None = None,
    session_name: str | None = None,
    instrument_name: str | None = None,
    instrument_id: str | None = None,
    owner_orcid: str | None = None,
    timestamp: datetime | None = None,
    public: bool = False,
    scientific_metadata: JsonMapping | None = None,
    keywords: str | Sequence[str] = (),
    samples: str | Sequence[str] | None = None,
    ingestor: str | None = None,
    note: str | None = None,
    crucible: Crucible | None = None,
) -> str:
    """Register files as a complete child of its parents and return its MFID: record, metadata, keywords, files,
    ingestion, links, samples, instrument, session and owner (by default those of the parents), a provenance record.

    The MFID follows from parents and bytes, so the same result is one dataset whoever registers it, and however often.
    `note` says how it was made. The default project is that of the first parent. Raises InputError, before anything is
    registered, if a parent or a file is missing.
    """
    given, paths, parent_ids = locals(), checked_files(files), words(parents)
    if not parent_ids or not paths:
        raise InputError("a child has at least one parent and one file; nothing was registered")
    session = session_for(crucible)
    datasets = [existing_dataset(mfid, session) for mfid in dict.fromkeys(parent_ids)]
    project = project_id or session.client.datasets.get(parent_ids[0]).project_id
    if project is None:
        raise InputError(f"dataset {parent_ids[0]} lies in no project; give project_id")
    inherited = dict.fromkeys(sample for parent in datasets for sample in parent.samples)
    declared = FileInput(
        file=(str(paths[0]),),
        metadata=dict(scientific_metadata or {}),
        keywords=words(keywords),
        samples=tuple(inherited) if samples is None else words(samples),
        ingestor=ingestor,
        **{name: given[name] for name in (*CORRECTED, "owner_orcid", "public") if name in given},
    )
    raw = raw_files(project, hash_files(paths, session), parents=datasets)
    name = dataset_name or f"{datasets[0].name} ({paths[0].stem})"
    return register_raw(raw, declared, name, session, note=note).mfid


@api_task("check lineage of {dsid}")
def check_lineage(dsid: str, *, raise_on_error: bool = True, crucible: Crucible | None = None) -> Verification:
    """Verify the dataset with its ancestors and descendants, like `verify`. Findings name the command that helps.

    Raises RunError if a finding is an error, unless `raise_on_error` is False.
    """
    check = verify_dataset(session_for(crucible), dsid)
    if raise_on_error and not check.ok:
        errors = [finding for finding in check.findings if finding.severity == "error"]
        remedy = f"\nto mend it: {errors[0].command}" if errors[0].command else ""
        raise RunError(
            f"the lineage of {dsid} has {amount(len(errors), 'error')}; the first: {errors[0].message}{remedy}"
        )
    return check


@api_task("draw lineage of {dsid}")
def render_lineage(
    dsid: str,
    path: str | Path | None = None,
    *,
    depth: int | None = None,
    direction: Direction = "both",
    key: str = "lineage",
    crucible: Crucible | None = None,
) -> str:
    """Draw the lineage of the dataset as SVG, write it to `path` if given, and add the artifact `key` to the run.

    The artifact shows the picture and a table of the datasets with links to their pages.
    """
    session = session_for(crucible)
    graph = fetch_lineage(session, dsid).around(dsid, depth, direction)
    picture = render_svg(graph, dsid)
    lineage_artifact(graph, dsid, session, key=key)
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(picture, encoding="utf-8")
    return picture
