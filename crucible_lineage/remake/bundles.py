"""A bundle from somebody: unpacked within bounds, and checked against its ids before any of it is used.

What the installed command runs is built anew from the records. The plan and the programs in a bundle are for
`python reproduce.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError, shortened
from crucible_lineage.lineage import verify_bundle
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import FileRef
from crucible_lineage.remake.confine import RemakeError, unpack
from crucible_lineage.remake.kit import ENVIRONMENTS, SOURCES, KitStep
from crucible_lineage.statements.consent import RecordedCode

if TYPE_CHECKING:
    from crucible_lineage.provenance.schema import KeptFile

LIST = "bundle.json"
MOST_FINDINGS = 5  # chosen: in a message


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle that leads to its ids: its folder, its list of contents with the SHA-256, and the kit to be made."""

    folder: Path
    contents: Mapping[str, Any]
    sha256: str
    kit: Path

    @property
    def about(self) -> str:
        """The result that it is about."""
        return str(self.contents["about"])

    def outputs(self) -> tuple[list[KitStep], list[RecordedCode]]:
        """Return its results of steps, and the code of each. A bundle proves no account: its maker answers for it."""
        outputs, codes = [], []
        for entry in self.contents["datasets"]:
            metadata = verify_bundle.record_of(self.folder, entry).get("scientific_metadata") or {}
            record = read_record(metadata)
            step = record.as_step if record is not None else None
            if step is not None and step.is_whole:
                name = f"the maker of the bundle, who names {step.agent.username}"
                authors, runs = frozenset({self.sha256}), step.activity.function
                outputs.append(KitStep(entry["mfid"], step, metadata))
                codes.append(RecordedCode(entry["mfid"], step.declared_step, runs, authors, name))
        return outputs, codes

    def copy(self, mfid: str, file: FileRef) -> str | None:
        """Copy a dataset's file into the kit. Return its path there; None if its bytes are not in the bundle."""
        entries = (entry for one in self.contents["datasets"] if one["mfid"] == mfid for entry in one["files"])
        source = next((entry["path"] for entry in entries if entry["sha256"] == file.sha256), None)
        if source is None:
            return None
        path = f"data/{mfid}/{file.sha256}"
        (self.kit / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / source, self.kit / path)
        return path

    def kept_bytes(self, kept: KeptFile) -> bytes:
        """Return source or environment by the hash in a record. InputError if it does not hold them."""
        for path in (f"{SOURCES}/{kept.sha256}.zip", f"{ENVIRONMENTS}/{kept.sha256}.json"):
            location = verify_bundle.inside(self.folder, path)
            if location and location.is_file() and verify_bundle.sha256(location) == kept.sha256:
                return location.read_bytes()
        raise InputError(f"the bundle has no file with the SHA-256 {kept.sha256}")


def open_bundle(bundle: Path, folder: Path, kit: Path) -> OpenedBundle:
    """Unpack a bundle into a folder, or take one that is a folder. InputError unless it leads to its ids."""
    try:
        if bundle.is_file():
            unpack(bundle, folder)
        else:
            folder = bundle
        listed = (folder / LIST).read_bytes()
        contents = json.loads(listed)
        if contents["format"] != verify_bundle.FORMAT:
            raise ValueError(f"its format is {contents['format']!r}")
        findings = list(verify_bundle.all_findings(folder, contents))
    except (OSError, RemakeError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"reproduce {bundle}: it is no bundle: {error}") from error
    if findings:
        raise InputError(
            f"reproduce {bundle}: it does not lead to its ids, so nothing of it was run: "
            f"{shortened(findings, MOST_FINDINGS)}; get it from its maker again"
        )
    return OpenedBundle(folder, contents, hashlib.sha256(listed).hexdigest(), kit)
