"""What a dataset holds: keywords, metadata, pictures and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.client.aliases import also_called
from crucible_lineage.client.dataset.files import FileCalls
from crucible_lineage.client.dataset.metadata import MetadataCalls
from crucible_lineage.client.dataset.thumbnails import Picture, picture_body
from crucible_lineage.client.http.connection import Session
from crucible_lineage.client.http.wire import parse, parse_all, segment, to_send
from crucible_lineage.client.ingestions import IngestionCalls
from crucible_lineage.client.models import FileRecord, IngestionRequest, Keyword, RemoteFileCreate, SearchHit, Thumbnail
from crucible_lineage.client.transfer.download import fetch, is_wanted, local_path
from crucible_lineage.errors import InputError, NotFoundError, ServerError

__all__ = ["DSID", "AddedFile", "ContentCalls"]

DSID = {"dsid": "mfid", "dataset_mfid": "mfid", "dataset_id": "mfid"}


@dataclass(frozen=True)
class AddedFile:
    """A file that was added to a dataset, and the request for its ingestion."""

    file: FileRecord
    existed: bool
    ingestion: IngestionRequest | None


class ContentCalls:
    """The half of `client.datasets` that is about what is in one dataset."""

    def __init__(self, session: Session, files: FileCalls, metadata: MetadataCalls, ingestions: IngestionCalls) -> None:
        self._session = session
        self._files = files
        self._metadata = metadata
        self._ingestions = ingestions

    @also_called(**DSID)
    def add_keyword(self, mfid: str, keyword: str) -> Keyword:
        """The keyword, which the dataset carries now; adding it again changes nothing."""
        if not keyword.strip():
            raise InputError("the keyword is empty; nothing was sent")
        what = f"add keyword {keyword!r} to dataset {mfid}"
        path = f"/datasets/{segment(mfid)}/keywords"
        answer = self._session.call("POST", path, what, mfid=mfid, params={"keyword": keyword}, repeatable=True)
        return parse(Keyword, answer, what)

    @also_called(**DSID)
    def get_keywords(self, mfid: str) -> list[Keyword]:
        """The keywords of the dataset."""
        what = f"read the keywords of dataset {mfid}"
        answer = self._session.get(f"/datasets/{segment(mfid)}/keywords", what, mfid=mfid)
        words = [{"keyword": item} if isinstance(item, str) else item for item in answer or ()]
        return parse_all(Keyword, words, what)

    @also_called(**DSID)
    def get_scientific_metadata(self, mfid: str) -> dict[str, Any] | None:
        """The metadata of the dataset; None if it has none."""
        return self._metadata.get(mfid)

    @also_called(scientific_metadata="metadata", **DSID)
    def update_scientific_metadata(
        self, mfid: str, metadata: Mapping[str, Any], overwrite: bool = False
    ) -> dict[str, Any]:
        """All metadata of the dataset, after `metadata` was merged into it or, with `overwrite`, took its place."""
        return self._metadata.replace(mfid, metadata) if overwrite else self._metadata.merge(mfid, metadata)

    def search_scientific_metadata(self, q: str, *, limit: int = 20) -> list[SearchHit]:
        """Resources of all kinds whose metadata holds all words of `q`; best first, at most 50."""
        return self._metadata.search(q, limit=limit)

    @also_called(image="picture", thumbnail="picture", thumbnail_name="name", **DSID)
    def add_thumbnail(self, mfid: str, picture: Picture, name: str | None = None) -> Thumbnail:
        """The new thumbnail, from an image file, image bytes or a figure. A lost answer is not repeated."""
        what = f"add a thumbnail to dataset {mfid}"
        body = picture_body(picture, name, f"{mfid}_thumbnail.png")
        path = f"/datasets/{segment(mfid)}/thumbnails"
        return parse(Thumbnail, self._session.call("POST", path, what, mfid=mfid, body=body), what)

    @also_called(**DSID)
    def get_thumbnails(self, mfid: str) -> list[Thumbnail]:
        """The thumbnails of the dataset."""
        what = f"read the thumbnails of dataset {mfid}"
        answer = self._session.get(f"/datasets/{segment(mfid)}/thumbnails", what, mfid=mfid)
        return parse_all(Thumbnail, answer, what)

    @also_called(**DSID)
    def update_thumbnail(
        self, mfid: str, thumbnail_id: int, *, picture: Picture | None = None, name: str | None = None
    ) -> Thumbnail:
        """The thumbnail with another picture, another name, or both."""
        what = f"change thumbnail {thumbnail_id} of dataset {mfid}"
        body = {} if picture is None else picture_body(picture, name, f"{mfid}_thumbnail.png")
        if name is not None:
            body["thumbnail_name"] = name
        path = f"/datasets/{segment(mfid)}/thumbnails/{int(thumbnail_id)}"
        return parse(Thumbnail, self._session.call("PATCH", path, what, mfid=mfid, body=body), what)

    @also_called(**DSID)
    def delete_thumbnail(self, mfid: str, thumbnail_id: int) -> None:
        """The thumbnail is gone."""
        path = f"/datasets/{segment(mfid)}/thumbnails/{int(thumbnail_id)}"
        self._session.call("DELETE", path, f"delete thumbnail {thumbnail_id} of dataset {mfid}", mfid=mfid)

    @also_called(file_path="path", ingestion_class="ingestor", **DSID)
    def add_file_to_dataset(
        self, mfid: str, path: str | Path, *, ingestor: str | None = None, ingest: bool = True
    ) -> AddedFile:
        """The file, which the dataset has now. Ingestion is requested unless the dataset had the file before."""
        uploaded = self._files.upload(mfid, path)
        request = None
        if ingest and not uploaded.existed:
            request = self._ingestions.request(uploaded.file.mfid, ingestor)
        return AddedFile(uploaded.file, uploaded.existed, request)

    @also_called(**DSID)
    def add_remote_file(
        self, mfid: str, file: RemoteFileCreate | Mapping[str, Any], storage_path: str | None = None
    ) -> FileRecord:
        """The record of a file that stays where it is, at `storage_path` of its storage."""
        new = to_send(RemoteFileCreate, file)
        what = f"note file {new.filename} in dataset {mfid}"
        answer = self._session.call("POST", f"/datasets/{segment(mfid)}/files", what, mfid=mfid, body=new.body())
        record = parse(FileRecord, answer, what)
        return record if storage_path is None else self._files.update(record.mfid, storage_path=storage_path)

    @also_called(**DSID)
    def list_files(self, mfid: str) -> list[FileRecord]:
        """The files of the dataset."""
        return self._files.list(mfid)

    @also_called(**DSID)
    def get_download_links(self, mfid: str) -> dict[str, str]:
        """Link by file MFID, for the files that can be downloaded. Whoever has a link has the file: log none."""
        what = f"get the download links of dataset {mfid}"
        try:
            answer = self._session.get(f"/datasets/{segment(mfid)}/download_links", what, mfid=mfid)
        except NotFoundError:  # so the service says that nothing is stored
            return {}
        if not isinstance(answer, dict):
            raise ServerError(f"could not {what}: Crucible's answer holds none", mfid=mfid)
        return {file_mfid: url for file_mfid, url in answer.items() if isinstance(url, str)}

    @also_called(output_dir="folder", **DSID)
    def download(
        self,
        mfid: str,
        folder: str | Path = "crucible-downloads",
        *,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
    ) -> list[Path]:
        """The files in `folder`/`mfid`, each checked against its record.

        `include` and `exclude` are patterns such as `*.dat`. Files that Crucible only has a record of are left out.
        """
        target = Path(folder) / segment(mfid)
        links = self.get_download_links(mfid)
        wanted = [
            (file, local_path(target, file))
            for file in self.list_files(mfid)
            if file.mfid in links and is_wanted(file.filename, include, exclude)
        ]
        return [fetch(self._files.storage, file, links[file.mfid], path) for file, path in wanted]
