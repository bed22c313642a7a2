"""What a dataset holds: keywords, metadata, pictures and files."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from crucible_lineage.client.dataset.files import FileCalls
from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse, parse_all, segment, to_send
from crucible_lineage.client.ingestions import IngestionCalls
from crucible_lineage.client.models import (
    FileRecord,
    IngestionRequest,
    Keyword,
    Metadata,
    RemoteFileCreate,
    SearchHit,
    Thumbnail,
)
from crucible_lineage.client.official import OfficialNames
from crucible_lineage.client.transfer.download import fetch, is_wanted, local_path
from crucible_lineage.errors import InputError, NotFoundError, RefusedError, ServerError
from crucible_lineage.service import COLONS, ServiceProfile

__all__ = ["AddedFile", "ContentCalls", "MetadataCalls", "Picture", "picture_body"]


@dataclass(frozen=True)
class AddedFile:
    """A file that was added to a dataset, and the request for its ingestion."""

    file: FileRecord
    existed: bool
    ingestion: IngestionRequest | None


class ContentCalls(OfficialNames):
    """The half of `client.datasets` that is about what is in one dataset."""

    subject = "datasets"

    def __init__(
        self,
        connection: Connection,
        files: FileCalls,
        metadata: MetadataCalls,
        ingestions: IngestionCalls,
        service: ServiceProfile,
    ) -> None:
        self._connection = connection
        self._keywords = Keywords(service)
        self._files = files
        self._metadata = metadata
        self._ingestions = ingestions

    def add_keyword(self, dsid: str, keyword: str) -> Keyword:
        """The keyword, which the dataset carries now; adding it again changes nothing."""
        if not keyword.strip():
            raise InputError("the keyword is empty; nothing was sent")
        what = f"add keyword {keyword!r} to dataset {dsid}"
        path = f"/datasets/{segment(dsid)}/keywords"

        def add(spell: Callable[[str], str]) -> object:
            params = {"keyword": spell(keyword)}
            return self._connection.call("POST", path, what, mfid=dsid, params=params, repeatable=True)

        return self._read(parse(Keyword, self._keywords.tried([keyword], add, writes=True), what))

    def get_keywords(self, dataset_id: str) -> list[Keyword]:
        """The keywords of the dataset."""
        what = f"read the keywords of dataset {dataset_id}"
        answer = self._connection.get(f"/datasets/{segment(dataset_id)}/keywords", what, mfid=dataset_id)
        words = [{"keyword": item} if isinstance(item, str) else item for item in answer or ()]
        return [self._read(word) for word in parse_all(Keyword, words, what)]

    def _read(self, word: Keyword) -> Keyword:
        read = self._keywords.read(word.keyword)
        return word if read == word.keyword else word.model_copy(update={"keyword": read})

    def get_scientific_metadata(self, dsid: str) -> dict[str, Any] | None:
        """The metadata of the dataset; None if it has none."""
        return self._metadata.get(dsid)

    def update_scientific_metadata(
        self, dsid: str, metadata: Mapping[str, object], overwrite: bool = False
    ) -> dict[str, Any]:
        """All metadata of the dataset, after `metadata` was merged into it or, with `overwrite`, took its place."""
        return self._metadata.replace(dsid, metadata) if overwrite else self._metadata.merge(dsid, metadata)

    def replace_scientific_metadata(self, dsid: str, metadata: Mapping[str, object]) -> dict[str, Any]:
        """`metadata`, which is now all that the dataset has."""
        return self._metadata.replace(dsid, metadata)

    def search_scientific_metadata(self, q: str, *, limit: int = 20) -> list[SearchHit]:
        """Resources of all kinds whose metadata holds all words of `q`; best first, at most 50."""
        return self._metadata.search(q, limit=limit)

    def add_thumbnail(self, dsid: str, picture: Picture, name: str | None = None) -> Thumbnail:
        """The new thumbnail, from an image file, image bytes or a figure.

        After a lost answer the same picture of that name is looked for before it is sent again.
        """
        what = f"add a thumbnail to dataset {dsid}"
        body = picture_body(picture, name, f"{dsid}_thumbnail.png")
        path = f"/datasets/{segment(dsid)}/thumbnails"

        def look() -> Thumbnail | None:
            wanted = (body["thumbnail_name"], body["thumbnail_b64str"])
            same = [one for one in self.get_thumbnails(dsid) if (one.thumbnail_name, one.thumbnail_b64str) == wanted]
            return max(same, key=lambda one: one.id, default=None)

        answer = self._connection.call("POST", path, what, mfid=dsid, body=body, look=look)
        return answer if isinstance(answer, Thumbnail) else parse(Thumbnail, answer, what)

    def get_thumbnails(self, dsid: str) -> list[Thumbnail]:
        """The thumbnails of the dataset."""
        what = f"read the thumbnails of dataset {dsid}"
        answer = self._connection.get(f"/datasets/{segment(dsid)}/thumbnails", what, mfid=dsid)
        return parse_all(Thumbnail, answer, what)

    def update_thumbnail(
        self, dsid: str, thumbnail_id: int, *, picture: Picture | None = None, name: str | None = None
    ) -> Thumbnail:
        """The thumbnail with another picture, another name, or both."""
        what = f"change thumbnail {thumbnail_id} of dataset {dsid}"
        body = {} if picture is None else picture_body(picture, name, f"{dsid}_thumbnail.png")
        if name is not None:
            body["thumbnail_name"] = name
        path = f"/datasets/{segment(dsid)}/thumbnails/{int(thumbnail_id)}"
        return parse(Thumbnail, self._connection.call("PATCH", path, what, mfid=dsid, body=body), what)

    def delete_thumbnail(self, dsid: str, thumbnail_id: int) -> None:
        """The thumbnail is gone."""
        path = f"/datasets/{segment(dsid)}/thumbnails/{int(thumbnail_id)}"
        self._connection.call("DELETE", path, f"delete thumbnail {thumbnail_id} of dataset {dsid}", mfid=dsid)

    def add_file_to_dataset(
        self,
        dsid: str,
        path: str | Path,
        *,
        ingestor: str | None = None,
        ingest: bool = True,
        replace: bool = False,
    ) -> AddedFile:
        """Add a file to the dataset, and request its ingestion unless the dataset had it before.

        FileConflictError for a name that is taken by other content, unless `replace` is True.
        """
        uploaded = self._files.upload(dsid, path, replace=replace)
        request = None
        if ingest and not uploaded.existed:
            request = self._ingestions.request(uploaded.file.mfid, ingestor)
        return AddedFile(uploaded.file, uploaded.existed, request)

    def add_remote_file(
        self, dsid: str, file: RemoteFileCreate | Mapping[str, object], storage_path: str | None = None
    ) -> FileRecord:
        """The record of a file that stays where it is, at `storage_path` of its storage."""
        new = to_send(RemoteFileCreate, file)
        what = f"note file {new.filename} in dataset {dsid}"

        def look() -> FileRecord | None:
            wanted = (new.filename, new.storage_backend, new.size, new.sha256_hash)
            have = {(f.filename, f.storage_backend, f.size, f.sha256_hash): f for f in self.list_files(dsid)}
            return have.get(wanted)

        path = f"/datasets/{segment(dsid)}/files"
        answer = self._connection.call("POST", path, what, mfid=dsid, body=new.body(), look=look)
        record = answer if isinstance(answer, FileRecord) else parse(FileRecord, answer, what)
        return record if storage_path is None else self._files.update(record.mfid, storage_path=storage_path)

    def list_files(self, dsid: str) -> list[FileRecord]:
        """The files of the dataset."""
        return self._files.list(dsid)

    def get_download_links(self, dsid: str) -> dict[str, str]:
        """Link by file MFID, for the files that can be downloaded. Whoever has a link has the file: log none."""
        what = f"get the download links of dataset {dsid}"
        try:
            answer = self._connection.get(f"/datasets/{segment(dsid)}/download_links", what, mfid=dsid)
        except NotFoundError:  # so the service says that nothing is stored
            return {}
        if not isinstance(answer, dict):
            raise ServerError(f"could not {what}: Crucible's answer holds none", mfid=dsid)
        return {file_mfid: url for file_mfid, url in answer.items() if isinstance(url, str)}

    def download(
        self,
        dsid: str,
        folder: str | Path = "crucible-downloads",
        *,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
    ) -> list[Path]:
        """The files in `folder`/`dsid`, each checked against its record.

        `include` and `exclude` are patterns such as `*.dat`. Files that Crucible only has a record of are left out.
        """
        target = Path(folder) / segment(dsid)
        links = self.get_download_links(dsid)
        wanted = [
            (file, local_path(target, file))
            for file in self.list_files(dsid)
            if file.mfid in links and is_wanted(file.filename, include, exclude)
        ]
        return [fetch(self._files.storage, file, links[file.mfid], path) for file, path in wanted]


OWN = ("pipeline", "recipe")  # what stands before the colon of keywords that this package gives

T = TypeVar("T")
Spell = Callable[[str], str]


class Keywords:
    """The keywords of one service, which is tried with a colon as long as nobody knows whether it takes one."""

    def __init__(self, service: ServiceProfile) -> None:
        self._service = service

    def spell(self, word: str) -> str:
        """Return a keyword as this service is sent it."""
        return _plain(word) if self._service.holds(COLONS) is False else word

    def read(self, word: str) -> str:
        """Return a keyword as it was given, from what this service answers."""
        before, _, rest = word.partition("_")
        return f"{before}:{rest}" if rest and before in OWN and self._service.holds(COLONS) is False else word

    def is_to_be_tried(self, words: Collection[str]) -> bool:
        """Return whether it is not known if these keywords are taken as they are."""
        return self._service.holds(COLONS) is None and any(":" in word for word in words)

    def tried(self, words: Collection[str], ask: Callable[[Spell], T], *, writes: bool = False) -> T:
        """Return what `ask` gives, which spells these keywords; in both ways if it is not known which is taken."""
        if not self.is_to_be_tried(words):
            return ask(self.spell)
        try:
            answer = ask(str)
        except RefusedError as refusal:
            try:
                answer = ask(_plain)
            except RefusedError:
                raise refusal from None
            self._service.note(COLONS, False, str(refusal))
            return answer
        if writes:
            self._service.note(COLONS, True, f"took {next(word for word in words if ':' in word)!r}")
        return answer


def _plain(word: str) -> str:
    return word.replace(":", "_")


class MetadataCalls(OfficialNames):
    """`client.metadata`: the scientific metadata of datasets, samples, instruments and projects, by their MFID."""

    subject = "metadata"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, mfid: str) -> dict[str, Any] | None:
        """The metadata of a resource; None if it has none."""
        what = f"read the metadata of {mfid}"
        answer = self._connection.get(f"/resources/{segment(mfid, 'resource')}/metadata", what, mfid=mfid)
        return None if answer is None else parse(Metadata, answer, what).scientific_metadata

    def create(self, mfid: str, metadata: Mapping[str, object]) -> dict[str, Any]:
        """`metadata`, which is now all that the resource has; ConflictError if it had some already."""
        return self._write("POST", mfid, metadata, None)

    def merge(self, mfid: str, metadata: Mapping[str, object]) -> dict[str, Any]:
        """All metadata of the resource, after `metadata` was merged in: objects key by key, other values replaced."""
        return self._write("PATCH", mfid, metadata, None)

    def replace(self, mfid: str, metadata: Mapping[str, object]) -> dict[str, Any]:
        """`metadata`, which is now all that the resource has."""
        return self._write("POST", mfid, metadata, {"overwrite": True})

    def search(self, q: str, *, limit: int = 20) -> list[SearchHit]:
        """Resources of all kinds whose metadata holds all words of `q` in keys or values; best first, at most 50."""
        what = f"search metadata for {q!r}"
        answer = self._connection.get("/resources/metadata/search", what, params={"q": q, "limit": limit})
        return parse_all(SearchHit, answer, what)

    def _write(
        self, method: str, mfid: str, metadata: Mapping[str, object], params: Mapping[str, object] | None
    ) -> dict[str, Any]:
        what = f"write the metadata of {mfid}"
        path = f"/resources/{segment(mfid, 'resource')}/metadata"
        answer = self._connection.call(method, path, what, mfid=mfid, params=params, body=metadata, repeatable=True)
        return parse(Metadata, answer, what).scientific_metadata


class Figure(Protocol):
    """What can draw itself into a file, as a matplotlib figure does."""

    def savefig(self, fname: object, **options: object) -> None: ...


Picture = str | Path | bytes | Figure


def picture_body(picture: Picture, name: str | None, default_name: str) -> dict[str, str]:
    """The request body for a picture given as path, as image bytes or as figure (drawn as PNG)."""
    if isinstance(picture, bytes):
        content = picture
    elif isinstance(picture, str | Path):
        path = Path(picture)
        if not path.is_file():
            raise InputError(f"there is no picture {path}; nothing was sent")
        content, default_name = path.read_bytes(), path.name
    elif hasattr(picture, "savefig"):
        drawn = io.BytesIO()
        picture.savefig(drawn, format="png")
        content = drawn.getvalue()
    else:
        raise InputError(f"a thumbnail is a path, image bytes or a figure, not {type(picture).__name__}")
    if not content:
        raise InputError("the picture is empty; nothing was sent")
    return {"thumbnail_name": name or default_name, "thumbnail_b64str": base64.b64encode(content).decode()}
