"""Files that no step made, measured or made by hand, as one dataset: hashed, with the id that they give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.provenance.recipe import derived_mfid, gives_id, raw_mfid, raw_recipe, recipe_sha256
from crucible_lineage.refs import DatasetRef, FileRef, name_fault
from crucible_lineage.registration.new_dataset import LocalFile
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.pipeline.files.remote import RemoteFile

__all__ = ["RawFiles", "hash_files", "require_possible_id"]

MOST_NAMED = 3  # files that a message lists


@dataclass(frozen=True)
class RawFiles:
    """Files that make up one dataset, hashed; `mfid` is None while nobody knows when they were taken.

    `remote` are those that lie elsewhere, by name; their paths are those of copies in the cache, if there are any.
    `named` says that the id was given, and follows from nothing.
    """

    project: str
    recipe: Mapping[str, Any]
    files: tuple[LocalFile, ...]
    mfid: str | None
    parents: tuple[DatasetRef, ...] = ()
    remote: Mapping[str, RemoteFile] = field(default_factory=dict)
    named: bool = False

    @property
    def recipe_sha256(self) -> str:
        """SHA-256 of the recipe."""
        return recipe_sha256(self.recipe)

    @property
    def told(self) -> str:
        """The files, as a message names them."""
        names = [file.ref.name for file in self.files]
        return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else "")

    def are_those_of(self, dataset: DatasetRef) -> bool:
        """True if the dataset holds just these files."""
        ours = {(file.ref.name, file.ref.sha256) for file in self.files}
        return {(file.name, file.sha256) for file in dataset.files} == ours

    def have_bytes_of(self, dataset: DatasetRef) -> bool:
        """Return whether the dataset holds just these bytes, under whatever names."""
        return sorted(file.sha256 for file in dataset.files) == sorted(file.ref.sha256 for file in self.files)


def hash_files(
    project: str,
    paths: Sequence[Path],
    moment: datetime | None,
    session: Session,
    parents: Sequence[DatasetRef] = (),
    remote: Sequence[RemoteFile] = (),
    salt: str | None = None,
    mfid: str | None = None,
) -> RawFiles:
    """The files as one dataset. With `parents` it is a result made by hand, and sorts beside the youngest of them.

    A `salt` gives it another id, `mfid` this one.
    """
    local = [LocalFile.of(path, session.store.checksums(path)) for path in paths]
    copies = [_cached_copy(file, session) for file in remote]
    files = tuple(sorted((*local, *copies), key=lambda file: file.ref.name))
    if not files:
        raise InputError("none of the declared files is there; a dataset has at least one")
    names = [file.ref.name for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two of the files are called {twice!r}; a dataset's files have different names")
    for name in names:
        if fault := name_fault(name):
            raise InputError(f"the name of file {name!r} {fault}; rename it")
    by_id = {parent.mfid: parent for parent in parents}
    made_of = tuple(by_id[mfid] for mfid in sorted(by_id))
    recipe = raw_recipe(project, [file.ref for file in files], made_of, salt)
    raw = RawFiles(project, recipe, files, mfid, made_of, {file.name: file for file in remote}, named=mfid is not None)
    if mfid is not None:
        require_possible_id(raw, mfid)
        return raw
    derived = derived_mfid(recipe) if parents else raw_mfid(recipe, moment) if moment else None
    return replace(raw, mfid=derived)


def require_possible_id(raw: RawFiles, mfid: str) -> None:
    """InputError if the id can only be that of something else."""
    if raw.parents:
        raise InputError(f"register {raw.told} as {mfid}: the id of a result follows from its recipe; leave --mfid out")
    if not is_mfid(mfid):
        raise InputError(f"{mfid!r} is no MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")
    if not gives_id(raw.recipe, mfid):
        raise InputError(
            f"register {raw.told} as {mfid}: that id follows from a recipe, and not from that of these files in "
            f"project {raw.project}; nothing was changed"
        )


def _cached_copy(file: RemoteFile, session: Session) -> LocalFile:
    """A file that lies elsewhere, with its checksums; the copy in the cache may have gone since they were noted."""
    from crucible_lineage.pipeline.files.remote import remote_checksums  # most pipelines need it not

    checksums = remote_checksums(file, session)
    ref = FileRef(file.name, checksums.sha256, checksums.size)
    return LocalFile(session.cache.path(checksums.sha256), ref, checksums)
