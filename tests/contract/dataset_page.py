"""Every call on Crucible's documentation page about datasets, in the page's own spelling, with our client.

`make lint` checks its types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible.models import Dataset

from crucible_lineage.client import CrucibleClient


def page(folder: Path, sample_id: str, project: str) -> dict[str, Any]:
    """The results of the calls."""
    shown: dict[str, Any] = {}
    client = CrucibleClient()  # address and key as the official client finds them

    dataset = Dataset(
        dataset_name="Gold nanoparticle TEM image",
        measurement="TEM",
        data_format="tif",
        session_name="2026-03-01",
        instrument_name="Titan",
        project_id=project,
        timestamp="2026-03-01T09:00:00Z",
        public=False,
    )
    result = client.datasets.create(
        dataset,
        scientific_metadata={"magnification": 50000, "temperature_K": 295.0},
        keywords=["gold", "nanoparticle"],
        files_to_upload=[str(folder / "image.dat"), str(folder / "notes.txt")],
        ingestor="ApiUploadIngestor",
        wait_for_ingestion_response=True,
    )
    dsid = result["dsid"]
    shown["created"] = result["created_record"]["dataset_name"]
    shown["metadata at once"] = result["scientific_metadata_record"]["scientific_metadata"]
    shown["files"] = len(result["files"])

    got = client.datasets.get(dsid, include_metadata=True, include_links=True)
    shown["got"] = (got["dataset_name"], got["measurement"], got["scientific_metadata"]["magnification"], got["links"])
    shown["listed"] = [
        dataset["unique_id"] for dataset in client.datasets.list(keywords=["gold"], measurement="TEM")
    ] == [dsid]
    shown["found"] = [one["unique_id"] for one in client.datasets.search("nanoparticle")] == [dsid]
    updated = client.datasets.update(dsid, data_type="image", session_name="2026-03-02")
    shown["updated"] = (updated["data_type"], updated["session_name"])
    client.datasets.update(dsid, public=True)
    shown["public"] = client.datasets.get(dsid)["public"]

    again = client.datasets.add_file_to_dataset(dsid, str(folder / "image.dat"))
    shown["the same file twice"] = again.existed
    shown["names"] = sorted(file["filename"] for file in client.datasets.list_files(dsid))
    links = client.datasets.get_download_links(dsid)
    shown["links"] = len(links)
    shown["downloaded"] = [path.name for path in client.datasets.download(dsid, folder / "here", include="*.dat")]

    client.datasets.update_scientific_metadata(dsid, metadata={"detector": "K3"})
    shown["merged"] = sorted(client.datasets.get_scientific_metadata(dsid) or {})
    shown["searched"] = [
        hit["unique_id"] for hit in client.datasets.search_scientific_metadata("temperature", limit=20)
    ] == [dsid]
    shown["replaced"] = client.datasets.replace_scientific_metadata(dsid, metadata={"only": 1})

    client.datasets.add_keyword(dsid, "annealed")
    shown["keywords"] = {word["keyword"] for word in client.datasets.get_keywords(dataset_id=dsid)} >= {
        "annealed",
        "gold",
    }
    client.datasets.add_sample(dataset_id=dsid, sample_id=sample_id)
    shown["by sample"] = [dataset["unique_id"] for dataset in client.datasets.list(sample_id=sample_id)] == [dsid]
    client.datasets.remove_sample(dsid, sample_id)

    child = client.datasets.create({"dataset_name": "segmented", "project_id": project})["dsid"]
    client.datasets.link_parent_child(parent_id=dsid, child_id=child)
    shown["children"] = [one["unique_id"] for one in client.datasets.list_children(dsid)] == [child]
    shown["parents"] = [parent["unique_id"] for parent in client.datasets.list_parents(child)] == [dsid]

    client.datasets.add_thumbnail(dsid, folder / "preview.png")
    shown["thumbnails"] = [thumbnail["thumbnail_name"] for thumbnail in client.datasets.get_thumbnails(dsid)]
    shown["deletion"] = client.datasets.delete(child, reason="a test")["status"]
    client.close()
    return shown
