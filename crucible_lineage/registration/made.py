"""The outputs of one step, made and not yet delivered, and the folder of the outbox that holds them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.core.slots import Filled
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.new_dataset import Elsewhere, LocalFile, NewDataset

__all__ = ["RESULT", "Made", "placed", "read_back", "to_json"]

RESULT = "result.json"


@dataclass(frozen=True)
class Made:
    """The outputs of one step, made and not yet delivered. `datasets` have their files in `folder`."""

    folder: Path
    step: str
    project: str
    made: str
    datasets: tuple[NewDataset, ...]

    @property
    def name(self) -> str:
        """The least id among its outputs."""
        return self.folder.name

    @property
    def mfids(self) -> tuple[str, ...]:
        """The ids of its outputs."""
        return tuple(new.mfid for new in self.datasets)

    @property
    def parents(self) -> frozenset[str]:
        """The datasets that have to be at Crucible before it."""
        return frozenset(parent for new in self.datasets for parent in new.parents)


def read_back(folder: Path) -> Made | None:
    """What the folder holds; None if it is not whole, and then it is set aside: its step is made again."""
    try:
        made = placed(_from_json(folder, json.loads((folder / RESULT).read_bytes())))
        for file in (file for new in made.datasets for file in new.files):
            if file.elsewhere is None and file.path.stat().st_size != file.ref.size:
                raise ValueError(f"{file.path} is cut short")
    except FileNotFoundError:
        if not folder.exists():  # delivered by another process just now
            return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    else:
        return made
    with suppress(OSError):
        folder.replace(folder.with_name(f".aside-{folder.name}-{secrets.token_hex(4)}"))
    return None


def placed(made: Made) -> Made:
    """The same, with its files where they lie in its folder: of several with the same bytes one does, the last."""
    files = [file for new in made.datasets for file in new.files if file.elsewhere is None]
    lying = {file.ref.sha256: file.checksums for file in files}
    return replace(made, datasets=tuple(replace(new, files=_placed(made.folder, new, lying)) for new in made.datasets))


def _placed(folder: Path, new: NewDataset, lying: Mapping[str, FileChecksums]) -> tuple[LocalFile, ...]:
    return tuple(
        file if file.elsewhere else replace(file, path=folder / file.ref.sha256, checksums=lying[file.ref.sha256])
        for file in new.files
    )


def to_json(made: Made) -> dict[str, object]:
    """The content of its `result.json`."""
    return {
        "step": made.step,
        "project": made.project,
        "made": made.made,
        "datasets": [_dataset_to_json(new) for new in made.datasets],
    }


def _from_json(folder: Path, stored: Mapping[str, Any]) -> Made:
    datasets = tuple(_dataset_from_json(new) for new in stored["datasets"])
    return Made(folder, stored["step"], stored["project"], stored["made"], datasets)


def _dataset_to_json(new: NewDataset) -> dict[str, object]:
    return {
        "mfid": new.mfid,
        "fields": dict(new.fields),
        "record": new.record.document(),
        "metadata": dict(new.metadata),
        "files": [_file_to_json(file) for file in new.files],
        "keywords": list(new.keywords),
        "places": {key: asdict(filled) for key, filled in new.places.items()},
        "parents": list(new.parents),
        "samples": list(new.samples),
        "ingest": new.ingest,
        "ingestor": new.ingestor,
        "ingestion_timeout_s": new.ingestion_timeout_s,
        "waits_for_ingestion": new.waits_for_ingestion,
    }


def _dataset_from_json(stored: Mapping[str, Any]) -> NewDataset:
    from crucible_lineage.provenance.schema import new_record  # pydantic, which planning should not pay

    return NewDataset(
        **{
            **stored,
            "record": new_record(stored["record"]),
            "files": tuple(map(_file_from_json, stored["files"])),
            "places": {key: Filled(**filled) for key, filled in stored["places"].items()},
            **{name: tuple(stored[name]) for name in ("keywords", "parents", "samples")},
        }
    )


def _file_to_json(file: LocalFile) -> dict[str, object]:
    place = file.elsewhere
    return {
        "ref": file.ref.to_json(),
        "checksums": file.checksums.to_json(),
        "path": str(file.path),
        "elsewhere": [place.storage, place.address] if place else None,
    }


def _file_from_json(stored: Mapping[str, Any]) -> LocalFile:
    place = stored["elsewhere"]
    return LocalFile(
        Path(stored["path"]),
        FileRef.from_json(stored["ref"]),
        FileChecksums.from_json(stored["checksums"]),
        Elsewhere(*place) if place else None,
    )
