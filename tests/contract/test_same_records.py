"""Our client leaves the same records as the official one, and gets the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FIELDS = {
    "dataset_name": "polystyrene spectrum",
    "project_id": "raman-lab",
    "measurement": "Raman",
    "data_format": "txt",
    "session_name": "monday",
    "timestamp": "2026-03-01T09:30:00+00:00",
}
METADATA = {"laser": {"nm": 632.8, "mW": [1, 2]}, "operator": "Ada Lövelace", "note": None}


def test_a_dataset_with_metadata_keywords_and_an_ingested_file(outcomes: Any, spectrum: Path) -> None:
    def scenario(user: Any) -> Any:
        mfid = user.create(FIELDS, METADATA, ["XRD", "π bonds & more"], [spectrum], wait=True)
        return [user.get(mfid)["scientific_metadata"], user.keywords(mfid)]

    ours, official = outcomes(scenario)
    assert ours == official
    assert ours[1]["ingestion_requests"][0]["status"] == "complete"
    assert ours[1]["datasets"][0]["files"][0]["filename"] == "polystyrene.txt"


def test_a_dataset_that_is_read_shows_the_same_fields(outcomes: Any) -> None:
    def scenario(user: Any) -> Any:
        parent = user.create(FIELDS, METADATA)
        child = user.create(FIELDS | {"dataset_name": "calibrated", "public": True, "size": 12})
        user.link(parent, child, "is_derived_from")
        return [{name: user.get(mfid)[name] for name in sorted(FIELDS)} for mfid in (parent, child)]

    ours, official = outcomes(scenario)
    assert ours == official


def test_changed_fields_instrument_and_publicity(outcomes: Any) -> None:
    def scenario(user: Any) -> Any:
        mfid = user.create(FIELDS)
        user.update(mfid, measurement="SEM", session_name=None, timestamp="2026-03-02T10:00:00+00:00")
        user.assign_instrument(mfid, "raman-1")
        user.publish(mfid, public=True)
        answers = [user.names(public=True), user.names(instrument_id="RAMAN-1")]
        user.publish(mfid, public=False)
        return [*answers, user.count(public=True)]

    ours, official = outcomes(scenario)
    assert ours == official
    assert ours[0] == [["polystyrene spectrum"], ["polystyrene spectrum"], 0]


def test_links_and_samples_added_and_removed(outcomes: Any) -> None:
    def scenario(user: Any) -> Any:
        raw, dark, result = (user.create(FIELDS | {"dataset_name": name}) for name in ("raw", "dark", "result"))
        wafer = user.sample(sample_name="wafer", sample_type="substrate", project_id="raman-lab")
        piece = user.sample(sample_name="piece", project_id="raman-lab")
        user.change_sample(piece, description="the left half")
        user.link_samples(wafer, piece)
        for parent, kind in ((raw, "is_derived_from"), (raw, "is_part_of"), (dark, None)):
            user.link(parent, result, kind)
        for sample in (wafer, piece):
            user.about(result, sample)
        answers = [sorted(user.parents(result)), user.children(raw), user.names(sample_mfid=piece)]
        user.unlink(dark, result)
        user.no_longer_about(result, wafer)
        return [*answers, user.parents(result)]

    ours, official = outcomes(scenario)
    assert ours == official
    assert ours[0] == [["dark", "raw"], ["result"], ["result"], ["raw"]]


def test_metadata_merged_and_replaced(outcomes: Any) -> None:
    def scenario(user: Any) -> Any:
        mfid = user.create(FIELDS)
        return [
            user.metadata(mfid),
            user.merge(mfid, METADATA),
            user.merge(mfid, {"laser": {"mW": [3], "name": "HeNe"}, "operator": {"first": "Ada"}}),
            user.find_metadata("HeNe"),
            user.replace(mfid, {"only": True}),
            user.metadata(mfid),
        ]

    ours, official = outcomes(scenario)
    assert ours == official
    assert ours[0][2]["laser"] == {"nm": 632.8, "mW": [3], "name": "HeNe"}
    assert ours[0][-1] == {"only": True}


def test_thumbnails_added_and_dropped(outcomes: Any, picture: Path) -> None:
    def scenario(user: Any) -> Any:
        mfid = user.create(FIELDS)
        user.picture(mfid, picture)
        user.drop_picture(mfid, user.picture(mfid, picture))

    ours, official = outcomes(scenario)
    assert ours == official
    (left,) = ours[1]["datasets"][0]["thumbnails"]
    assert left["thumbnail_name"] == "preview.png"


def test_files_uploaded_twice_replaced_and_downloaded(outcomes: Any, spectrum: Path, tmp_path: Path) -> None:
    original = spectrum.read_bytes()

    def scenario(user: Any) -> Any:
        spectrum.write_bytes(original)
        mfid = user.create(FIELDS)
        user.upload(mfid, spectrum)
        user.upload(mfid, spectrum)
        spectrum.write_bytes(original + b"1602.3,411\n")
        user.upload(mfid, spectrum, replace=True)
        return user.download(mfid, tmp_path / f"from {type(user).__name__}")

    ours, official = outcomes(scenario)
    for _, held in (ours, official):  # the ingestor may still be reading the files
        held["ingestion_requests"] = len(held["ingestion_requests"])
        held["datasets"][0] |= {"scientific_metadata": None, "thumbnails": None}
    assert ours == official
    assert ours[0] == {"polystyrene.txt": original + b"1602.3,411\n"}
    assert ours[1]["ingestion_requests"] == 2


def test_lists_counts_and_search(outcomes: Any) -> None:
    def scenario(user: Any) -> Any:
        for number, measurement in enumerate(("Raman", "Raman", "SEM")):
            mfid = user.create(FIELDS | {"dataset_name": f"spectrum {number}", "measurement": measurement})
            user.keyword(mfid, f"batch {number % 2}")
        return [
            user.names(project_id="raman-lab", measurement="Raman"),
            user.names(keyword="BATCH 0", sort="name"),
            user.names(creation_time_gte="2020-01-01", limit=2),
            user.count(measurement="Raman"),
            user.count(creation_time_lte="2020-01-01"),
            sorted(user.search("spectrum")),
        ]

    ours, official = outcomes(scenario)
    assert ours == official
    assert ours[0][:2] == [["spectrum 1", "spectrum 0"], ["spectrum 0", "spectrum 2"]]


def test_deletion_requested_and_carried_out(outcomes: Any) -> None:
    def scenario(user: Any) -> Any:
        kept, gone = (user.create(FIELDS | {"dataset_name": name}) for name in ("kept", "gone"))
        user.request_deletion(kept, "by mistake")
        user.request_deletion(gone, "a duplicate")
        user.delete(gone)
        return user.names()

    ours, official = outcomes(scenario)
    assert ours == official
    assert ours[0] == []
    assert ours[1]["deletion_audit"][0]["resource_name"] == "gone"
