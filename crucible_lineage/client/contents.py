"""The contents of a dataset: keywords, metadata, pictures and files."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crucible_lineage.client.connection import Calls, Connection
from crucible_lineage.client.files import FileCalls, IngestionCalls, is_selected, local_path
from crucible_lineage.client.models import FileRecord, IngestionRequest, Keyword, Metadata, SearchHit, Thumbnail
from crucible_lineage.client.uploads import UploadedFile
from crucible_lineage.client.wire import parse, parse_all, segment
from crucible_lineage.errors import InputError, NotFoundError, ServerError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.pictures import save_picture
from crucible_lineage.marks import KEY
from crucible_lineage.text.masking import masked, masked_text


@dataclass(frozen=True)
class AddedFile(UploadedFile):
    """A file that was added to a dataset, and the request for its ingestion."""

    ingestion: IngestionRequest | None


class ContentCalls(Calls):
    """The part of `client.datasets` that deals with the contents of one dataset."""

    def __init__(self, connection: Connection, files: FileCalls) -> None:
        self._connection = connection
        self._files = files
        self._metadata = MetadataCalls(connection)
        self._ingestions = IngestionCalls(connection)

    def add_keyword(self, dsid: str, keyword: str) -> Keyword:
        """Add a keyword to the dataset and return it; adding it again changes nothing."""
        if not keyword.strip():
            raise InputError("the keyword is empty; nothing was sent")
        path, action = f"/datasets/{segment(dsid)}/keywords", f"add keyword {keyword!r} to dataset {dsid}"
        params = {"keyword": masked_text(keyword)}
        return self._connection.record(Keyword, "POST", path, action, params=params, repeatable=True)

    def get_keywords(self, dataset_id: str) -> list[Keyword]:
        """Return the keywords of the dataset."""
        action = f"read the keywords of dataset {dataset_id}"
        answer = self._connection.get(f"/datasets/{segment(dataset_id)}/keywords", action)
        words = [{"keyword": item} if isinstance(item, str) else item for item in answer or ()]
        return parse_all(Keyword, words, action)

    def get_scientific_metadata(self, dsid: str) -> JsonObject | None:
        """Return the metadata of the dataset; None if it has none."""
        return self._metadata.get(dsid)

    def update_scientific_metadata(
        self, dsid: str, metadata: Mapping[str, object], overwrite: bool = False
    ) -> JsonObject:
        """Merge metadata into those of the dataset, or replace them, and return the result."""
        return self._metadata.replace(dsid, metadata) if overwrite else self._metadata.merge(dsid, metadata)

    def replace_scientific_metadata(self, dsid: str, metadata: Mapping[str, object]) -> JsonObject:
        """Replace all metadata of the dataset and return the result."""
        return self._metadata.replace(dsid, metadata)

    def search_scientific_metadata(self, q: str, *, limit: int = 20) -> list[SearchHit]:
        """Return resources of all kinds whose metadata contain all words of `q`, best first, at most 50."""
        return self._metadata.search(q, limit=limit)

    def add_thumbnail(self, dsid: str, picture: Picture, name: str | None = None) -> Thumbnail:
        """Add a thumbnail from an image file, image bytes or a figure.

        After a lost answer, the client looks for the same picture of that name before it repeats the call.
        """
        action = f"add a thumbnail to dataset {dsid}"
        body = picture_body(picture, name, f"{dsid}_thumbnail.png")
        path = f"/datasets/{segment(dsid)}/thumbnails"

        def find_effect() -> Thumbnail | None:
            sent = (body["thumbnail_name"], body["thumbnail_b64str"])
            same = [
                thumbnail
                for thumbnail in self.get_thumbnails(dsid)
                if (thumbnail.thumbnail_name, thumbnail.thumbnail_b64str) == sent
            ]
            return max(same, key=lambda thumbnail: thumbnail.id, default=None)

        answer = self._connection.call("POST", path, action, body=body, find_effect=find_effect)
        return answer if isinstance(answer, Thumbnail) else parse(Thumbnail, answer, action)

    def get_thumbnails(self, dsid: str) -> list[Thumbnail]:
        """Return the thumbnails of the dataset."""
        path, action = f"/datasets/{segment(dsid)}/thumbnails", f"read the thumbnails of dataset {dsid}"
        return self._connection.records(Thumbnail, path, action)

    def delete_thumbnail(self, dsid: str, thumbnail_id: int) -> None:
        """Delete the thumbnail."""
        path = f"/datasets/{segment(dsid)}/thumbnails/{int(thumbnail_id)}"
        self._connection.call("DELETE", path, f"delete thumbnail {thumbnail_id} of dataset {dsid}")

    def add_file_to_dataset(
        self, dsid: str, path: str | Path, *, ingestor: str | None = None, ingest: bool = True, replace: bool = False
    ) -> AddedFile:
        """Add a file to the dataset, and request its ingestion unless the dataset had it before.

        If the name exists with other content, raises FileConflictError, unless `replace` is True.
        """
        uploaded = self._files.upload(dsid, path, replace=replace)
        request = None
        if ingest and not uploaded.existed:
            request = self._ingestions.request(uploaded.file.mfid, ingestor)
        return AddedFile(uploaded.file, uploaded.existed, request)

    def list_files(self, dsid: str) -> list[FileRecord]:
        """Return the files of the dataset."""
        return self._files.list(dsid)

    def get_download_links(self, dsid: str) -> dict[str, str]:
        """Return links by MFID of the files that can be downloaded. They give access to the files: do not log them."""
        action = f"get the download links of dataset {dsid}"
        try:
            answer = self._connection.get(f"/datasets/{segment(dsid)}/download_links", action)
        except NotFoundError:  # the service's answer if nothing is stored
            return {}
        if not isinstance(answer, dict):
            raise ServerError(f"could not {action}: Crucible's answer has no links", mfid=dsid)
        return {file_mfid: url for file_mfid, url in answer.items() if isinstance(url, str)}

    def download(
        self,
        dsid: str,
        folder: str | Path = "crucible-downloads",
        *,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
    ) -> list[Path]:
        """Download the files to `folder`/`dsid`, each checked against its record, and return their paths.

        `include` and `exclude` are patterns such as `*.dat`. Files of which Crucible only has a record are skipped.
        """
        target = Path(folder) / segment(dsid)
        links = self.get_download_links(dsid)
        selected = [
            (file, local_path(target, file))
            for file in self.list_files(dsid)
            if file.mfid in links and is_selected(file.filename, include, exclude)
        ]
        return [self._files.fetch(file, path, link=links[file.mfid]) for file, path in selected]


class MetadataCalls(Calls):
    """`client.metadata`: the scientific metadata of datasets, samples, instruments and projects, by MFID."""

    def get(self, mfid: str) -> JsonObject | None:
        """Return the metadata of a resource; None if it has none."""
        action = f"read the metadata of {mfid}"
        answer = self._connection.get(f"/resources/{segment(mfid, 'resource')}/metadata", action)
        return None if answer is None else parse(Metadata, answer, action).scientific_metadata

    def create(self, mfid: str, metadata: Mapping[str, object]) -> JsonObject:
        """Write the first metadata of the resource and return them. Raises ConflictError if it has some."""
        return self._write("POST", mfid, metadata, None)

    def merge(self, mfid: str, metadata: Mapping[str, object]) -> JsonObject:
        """Merge `metadata` into those of the resource, objects key by key, and return the result."""
        return self._write("PATCH", mfid, metadata, None)

    def replace(self, mfid: str, metadata: Mapping[str, object]) -> JsonObject:
        """Replace all metadata of the resource and return the result."""
        return self._write("POST", mfid, metadata, {"overwrite": True})

    def search(self, q: str, *, limit: int = 20) -> list[SearchHit]:
        """Return resources whose metadata contain all words of `q` in keys or values, best first, at most 50."""
        path, params = "/resources/metadata/search", {"q": q, "limit": limit}
        return self._connection.records(SearchHit, path, f"search metadata for {q!r}", params=params)

    def _write(
        self, method: str, mfid: str, metadata: Mapping[str, object], params: Mapping[str, object] | None
    ) -> JsonObject:
        action = f"write the metadata of {mfid}"
        path = f"/resources/{segment(mfid, 'resource')}/metadata"
        options = {"mfid": mfid, "params": params, "body": without_secrets(metadata), "repeatable": True}
        return self._connection.record(Metadata, method, path, action, **options).scientific_metadata


def without_secrets(metadata: Mapping[str, object]) -> JsonObject:
    """Mask secrets in metadata, but not in a record: that was done before it was sealed."""
    return {key: value if key == KEY else masked({key: value})[key] for key, value in metadata.items()}


class Figure(Protocol):
    """An object that can draw itself into a file, such as a matplotlib figure."""

    def savefig(self, fname: object, **options: object) -> None: ...


Picture = str | Path | bytes | Figure


def picture_body(picture: Picture, name: str | None, default_name: str) -> dict[str, str]:
    """Return the request body for a picture: a path, image bytes, or a figure (drawn as PNG)."""
    if isinstance(picture, bytes):
        content = picture
    elif isinstance(picture, str | Path):
        path = Path(picture)
        if not path.is_file():
            raise InputError(f"there is no picture {path}; nothing was sent")
        content, default_name = path.read_bytes(), path.name
    elif hasattr(picture, "savefig"):
        png = io.BytesIO()
        save_picture(picture, png)
        content = png.getvalue()
    else:
        raise InputError(f"a thumbnail is a path, image bytes or a figure, not {type(picture).__name__}")
    if not content:
        raise InputError("the picture is empty; nothing was sent")
    return {"thumbnail_name": name or default_name, "thumbnail_b64str": base64.b64encode(content).decode()}
