"""Choices of calibrations, compared with those of LSST's butler: by hand, since the butler is no dependency.

    python tests/benchmarks/calibrations.py history HISTORY.json [SEED]
    OTHER/python tests/benchmarks/calibrations.py butler HISTORY.json BUTLER.json    where lsst-daf-butler is installed
    python tests/benchmarks/calibrations.py compare HISTORY.json BUTLER.json

A history has four detectors, certifications with gaps, replacements that split, decertifications, and exposures, of
which some lie on the very moments at which a range begins or ends. Both are asked at the end, and as of the middle.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

DETECTORS = 4
DAYS = 730
EXPOSURES = 10_000
BEGIN = datetime(2023, 1, 1, tzinfo=UTC)


def history(seed: int) -> dict[str, Any]:
    """Certifications and decertifications in order, and exposures."""
    chance = random.Random(seed)
    acts: list[dict[str, Any]] = []
    number = 0

    def act(kind: str, detector: int, since: float, until: float | None, name: str = "") -> None:
        acts.append({"act": kind, "detector": detector, "from": since, "until": until, "name": name})

    for detector in range(DETECTORS):  # 30 each, with gaps
        for month in range(24):
            begin = month * 30 + chance.choice([0, 0, 0, 5])
            act("certify", detector, begin, (month + 1) * 30 - chance.choice([0, 0, 3]), f"c{number}")
            number += 1
    for _ in range(40):  # replacements that split, shorten or cover
        begin = chance.randrange(DAYS - 10) + chance.choice([0, 0.25])
        until = None if chance.random() < 0.05 else begin + chance.choice([1, 4, 20, 45, 90])
        act("replace", chance.randrange(DETECTORS), begin, until, f"c{number}")
        number += 1
    edges = [one[key] for one in acts for key in ("from", "until") if one[key] is not None]
    exposures = [
        (chance.randrange(DETECTORS), chance.choice(edges) if chance.random() < 0.1 else chance.random() * DAYS)
        for _ in range(EXPOSURES)
    ]
    return {"acts": acts, "middle": len(acts) - 25, "exposures": exposures}


def butler(found: dict[str, Any]) -> dict[str, Any]:
    """What the butler chooses, and how long a choice takes."""
    import astropy.time
    from lsst.daf.butler import Butler, CollectionType, DatasetType, Timespan

    root = tempfile.mkdtemp()
    Butler.makeRepo(root)
    it = Butler.from_config(root, writeable=True)
    registry = it.registry
    registry.insertDimensionData(
        "instrument", {"name": "Cam", "detector_max": 9, "visit_max": 9, "exposure_max": 9, "class_name": "x.Y"}
    )
    for detector in range(DETECTORS):
        registry.insertDimensionData("detector", {"instrument": "Cam", "id": detector, "full_name": f"d{detector}"})
    kind = DatasetType(
        "bias", it.dimensions.conform(["instrument", "detector"]), "StructuredDataDict", isCalibration=True
    )
    registry.registerDatasetType(kind)

    def moment(days: float) -> Any:
        text = (BEGIN + timedelta(days=days)).replace(tzinfo=None).isoformat()
        return astropy.time.Time(text, format="isot", scale="tai")

    def apply(acts: list[dict[str, Any]], collection: str, refs: dict[str, Any]) -> None:
        registry.registerCollection(collection, CollectionType.CALIBRATION)
        for one in acts:
            span = Timespan(moment(one["from"]), None if one["until"] is None else moment(one["until"]))
            where = {"instrument": "Cam", "detector": one["detector"]}
            if one["act"] != "certify":
                registry.decertify(collection, "bias", span, dataIds=[registry.expandDataId(where)])
            if one["name"] not in refs:
                registry.registerRun(one["name"])
                (refs[one["name"]],) = registry.insertDatasets("bias", [where], run=one["name"])
            registry.certify(collection, [refs[one["name"]]], span)

    refs: dict[str, Any] = {}
    apply(found["acts"][: found["middle"]], "middle", refs)
    apply(found["acts"], "end", refs)
    answers: dict[str, Any] = {}
    for collection in ("middle", "end"):
        begun = time.perf_counter()
        chosen = []
        for detector, days in found["exposures"]:
            at = Timespan.fromInstant(moment(days))
            ref = it.find_dataset("bias", instrument="Cam", detector=detector, collections=collection, timespan=at)
            chosen.append(ref.run if ref else None)
        answers[collection] = chosen
        answers[f"{collection}_s"] = time.perf_counter() - begun
    return answers


def ours(found: dict[str, Any]) -> dict[str, Any]:
    """What is chosen here: acts are stated in an embedded Crucible, one by one."""
    from crucible_lineage.session import Session
    from crucible_lineage.settings import Settings
    from crucible_lineage.statements.calibrations import Calibrations
    from crucible_lineage.statements.stating import certificates_as_of, certify

    answers: dict[str, Any] = {}
    with Session(Settings(Path(tempfile.mkdtemp()))) as session:
        session.ensure_project("lab")
        ids, names = {}, {}
        for one in found["acts"]:
            if one["name"] and one["name"] not in ids:
                made = session.client.datasets.create(
                    {"project_id": "lab", "dataset_name": one["name"], "measurement": "bias"}
                )
                ids[one["name"]], names[made.dsid] = made.dsid, one["name"]
        begun = time.perf_counter()
        as_of = ""
        for number, one in enumerate(found["acts"]):
            if number == found["middle"]:
                time.sleep(1.1)
                as_of = datetime.now(UTC).isoformat()
                time.sleep(1.1)
            ends = [(BEGIN + timedelta(days=one[key])).isoformat() for key in ("from", "until") if one[key] is not None]
            fields = {"instrument": "Cam", "metadata.detector": str(one["detector"])}
            certify(session, ids[one["name"]], fields, *ends, why=str(number), replaced=one["act"] == "replace")
        answers["stated_s"] = time.perf_counter() - begun
        for collection, moment in (("middle", as_of), ("end", "")):
            begun = time.perf_counter()
            calibrations = Calibrations(certificates_as_of(session, "lab", "bias", moment))
            chosen = []
            for detector, days in found["exposures"]:
                fields = {"instrument_name": "Cam", "metadata.detector": detector}
                fitting = calibrations.fitting("bias", fields.get, BEGIN + timedelta(days=days))
                assert len(fitting.valid) <= 1
                chosen.append(names[fitting.valid[0].dataset] if fitting.valid else None)
            answers[collection] = chosen
            answers[f"{collection}_s"] = time.perf_counter() - begun
    return answers


def main(act: str, path: str, *others: str) -> None:
    """Do what the command line says."""
    if act == "history":
        Path(path).write_text(json.dumps(history(int(others[0]) if others else 1)), encoding="utf-8")
        return
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if act == "butler":
        Path(others[0]).write_text(json.dumps(butler(found)), encoding="utf-8")
        return
    theirs = json.loads(Path(others[0]).read_text(encoding="utf-8"))
    mine = ours(found)
    for collection in ("middle", "end"):
        pairs = list(zip(mine[collection], theirs[collection], strict=True))
        differing = sum(one != other for one, other in pairs)
        none = sum(one is None for one, _ in pairs)
        ratio = theirs[f"{collection}_s"] / mine[f"{collection}_s"]
        each = theirs[f"{collection}_s"] / len(pairs) * 1e3
        took = mine[f"{collection}_s"]
        print(f"{collection}: {len(pairs)} exposures, {none} without, {differing} chosen otherwise; ", end="")
        print(f"{took:.3f} s here, {each:.2f} ms each there, {ratio:,.0f} times as many a second")
    print(f"{len(found['acts'])} certifications stated in {mine['stated_s']:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
