"""Two users with the same methods, which return plain values: one uses our client, the other the official one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible import CrucibleClient as OfficialClient
from crucible.models import Dataset, Sample

from crucible_lineage.client import CrucibleClient


class User:
    """Calls that are spelled alike in both clients."""

    client: Any

    def update(self, mfid: str, **fields: Any) -> None:
        self.client.datasets.update(mfid, **fields)

    def keyword(self, mfid: str, word: str) -> None:
        self.client.datasets.add_keyword(mfid, word)

    def unlink(self, parent: str, child: str) -> None:
        self.client.datasets.unlink(parent, child)

    def change_sample(self, mfid: str, **fields: Any) -> None:
        self.client.samples.update(mfid, **fields)

    def drop_picture(self, mfid: str, picture: int) -> None:
        self.client.datasets.delete_thumbnail(mfid, picture)

    def delete(self, mfid: str) -> None:
        self.client.deletions.delete(mfid)


class Ours(User):
    """The scenario's methods by our client."""

    def __init__(self, url: str, key: str) -> None:
        self.client = CrucibleClient(url, key)

    def create(self, fields: Any, metadata: Any = None, keywords: Any = (), files: Any = (), wait: bool = False) -> str:
        made = self.client.datasets.create(
            fields, scientific_metadata=metadata, keywords=keywords, files=files, wait=wait
        )
        return made.dsid

    def get(self, mfid: str) -> dict[str, Any]:
        return self.client.datasets.get(mfid, include_metadata=True, include_links=True).model_dump()

    def names(self, **filters: Any) -> list[str]:
        return [str(found.dataset_name) for found in self.client.datasets.list(**filters)]

    def count(self, **filters: Any) -> int:
        return self.client.datasets.count(**filters)

    def search(self, text: str) -> list[str]:
        return [str(found.dataset_name) for found in self.client.datasets.search(text)]

    def find_metadata(self, text: str) -> list[str]:
        return [str(found.name) for found in self.client.datasets.search_scientific_metadata(text)]

    def merge(self, mfid: str, metadata: dict[str, Any]) -> Any:
        return self.client.datasets.update_scientific_metadata(mfid, metadata)

    def replace(self, mfid: str, metadata: dict[str, Any]) -> Any:
        return self.client.datasets.update_scientific_metadata(mfid, metadata, overwrite=True)

    def metadata(self, mfid: str) -> Any:
        return self.client.datasets.get_scientific_metadata(mfid)

    def keywords(self, mfid: str) -> list[str]:
        return [word.keyword for word in self.client.datasets.get_keywords(mfid)]

    def link(self, parent: str, child: str, kind: str | None = None) -> None:
        self.client.datasets.link_parent_child(parent, child, kind)

    def parents(self, mfid: str) -> list[str]:
        return [str(found.dataset_name) for found in self.client.datasets.list_parents(mfid)]

    def children(self, mfid: str) -> list[str]:
        return [str(found.dataset_name) for found in self.client.datasets.list_children(mfid)]

    def sample(self, **fields: Any) -> str:
        return self.client.samples.create(fields).unique_id

    def link_samples(self, parent: str, child: str) -> None:
        self.client.samples.link_parent_child(parent, child)

    def about(self, dataset: str, sample: str) -> None:
        self.client.datasets.add_sample(dataset, sample)

    def no_longer_about(self, dataset: str, sample: str) -> None:
        self.client.datasets.remove_sample(dataset, sample)

    def picture(self, mfid: str, path: Path) -> int:
        return self.client.datasets.add_thumbnail(mfid, path).id

    def upload(self, mfid: str, path: Path, *, replace: bool = False) -> None:
        if replace:
            uploaded = self.client.files.upload(mfid, path, replace=True)
            self.client.ingestions.request(uploaded.file.mfid)
        else:
            self.client.datasets.add_file_to_dataset(mfid, path)

    def download(self, mfid: str, folder: Path) -> dict[str, bytes]:
        self.client.datasets.download(mfid, folder)
        return contents(folder)

    def publish(self, mfid: str, *, public: bool) -> None:
        self.client.datasets.update(mfid, public=public)

    def assign_instrument(self, mfid: str, slug: str) -> None:
        self.client.datasets.assign_instrument(mfid, slug)

    def request_deletion(self, mfid: str, reason: str) -> int:
        return self.client.datasets.delete(mfid, reason).id

    def close(self) -> None:
        self.client.close()


class Official(User):
    """The same methods by the official client."""

    def __init__(self, url: str, key: str) -> None:
        self.client = OfficialClient(url, key)

    def create(self, fields: Any, metadata: Any = None, keywords: Any = (), files: Any = (), wait: bool = False) -> str:
        made = self.client.datasets.create(
            Dataset(**fields),
            scientific_metadata=metadata,
            keywords=list(keywords),
            files=[str(path) for path in files],
            wait_for_ingestion_response=wait,
        )
        return str(made["dsid"])

    def get(self, mfid: str) -> dict[str, Any]:
        return dict(self.client.datasets.get(mfid, include_metadata=True, include_links=True))

    def names(self, **filters: Any) -> list[str]:
        return [found["dataset_name"] for found in self.client.datasets.list(**filters)]

    def count(self, **filters: Any) -> int:
        return int(self.client.datasets.count(**filters))

    def search(self, text: str) -> list[str]:
        return [found["dataset_name"] for found in self.client.datasets.search(text)]

    def find_metadata(self, text: str) -> list[str]:
        return [dict(found)["name"] for found in self.client.datasets.search_metadata(text)]

    def merge(self, mfid: str, metadata: dict[str, Any]) -> Any:
        return self.client.datasets.update_scientific_metadata(mfid, metadata)["scientific_metadata"]

    def replace(self, mfid: str, metadata: dict[str, Any]) -> Any:
        return self.client.datasets.update_scientific_metadata(mfid, metadata, overwrite=True)["scientific_metadata"]

    def metadata(self, mfid: str) -> Any:
        found = self.client.datasets.get_scientific_metadata(mfid)
        return found and found["scientific_metadata"]

    def keywords(self, mfid: str) -> list[str]:
        return [word["keyword"] for word in self.client.datasets.get_keywords(mfid)]

    def link(self, parent: str, child: str, kind: str | None = None) -> None:
        self.client.datasets.link(parent, child, kind)

    def parents(self, mfid: str) -> list[str]:
        return [found["dataset_name"] for found in self.client.datasets.list_parents(mfid)]

    def children(self, mfid: str) -> list[str]:
        return [found["dataset_name"] for found in self.client.datasets.list_children(mfid)]

    def sample(self, **fields: Any) -> str:
        return str(self.client.samples.create(Sample(**fields))["unique_id"])

    def link_samples(self, parent: str, child: str) -> None:
        self.client.samples.link(parent, child)

    def about(self, dataset: str, sample: str) -> None:
        self.client.datasets.link_sample(dataset, sample)

    def no_longer_about(self, dataset: str, sample: str) -> None:
        self.client.datasets.unlink_sample(dataset, sample)

    def picture(self, mfid: str, path: Path) -> int:
        return int(self.client.datasets.add_thumbnail(mfid, str(path))["id"])

    def upload(self, mfid: str, path: Path, *, replace: bool = False) -> None:
        self.client.datasets.add_file(mfid, str(path), replace=replace)

    def download(self, mfid: str, folder: Path) -> dict[str, bytes]:
        self.client.datasets.download(mfid, output_dir=str(folder), no_record=True)
        return contents(folder)

    def publish(self, mfid: str, *, public: bool) -> None:
        (self.client.datasets.set_public if public else self.client.datasets.set_private)(mfid)

    def assign_instrument(self, mfid: str, slug: str) -> None:
        self.client.datasets.assign_instrument(mfid, instrument_id=slug)

    def request_deletion(self, mfid: str, reason: str) -> int:
        return int(self.client.deletions.request(mfid, reason)["id"])

    def close(self) -> None:
        self.client._session.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
