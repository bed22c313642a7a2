"""Files in remote storage, as at gs://bucket/name: finding them, fetching them into the cache, sending them.

Each kind of storage has a source, found by the scheme of the address: an entry point of that name in the group
`crucible_lineage.file_sources`, a function from the name of a Prefect block (or None) to a `FileSource`.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from crucible_lineage.errors import ChecksumError, InputError, NotFoundError, RefusedError
from crucible_lineage.machine.checksums import FileChecksums, Scan, crc32c_text, file_sha256
from crucible_lineage.machine.process import traffic
from crucible_lineage.pipeline.declare.inputs import split_address
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient


GROUP = "crucible_lineage.file_sources"
_WILD = re.compile(r"\*\*/|\*\*|\*|\?|\[[^]]+\]")


@dataclass(frozen=True)
class RemoteFile:
    """One state of a remote file: a `generation` has the same bytes. `block` is the Prefect block for access."""

    url: str
    generation: str
    size: int
    crc32c: int | None
    block: str | None = None

    @property
    def name(self) -> str:
        """The last part of the address, which is the file's name in a dataset."""
        return self.url.rpartition("/")[2]

    @property
    def address(self) -> str:
        """The address with the generation, which always has the same bytes."""
        return f"{self.url}#{self.generation}"

    def to_json(self) -> dict[str, object]:
        """Return the part of a dataset's metadata that names the file's source."""
        bucket, _, name = self.url.partition("://")[2].partition("/")
        location = {"url": self.url, "bucket": bucket, "name": name, "generation": self.generation}
        return {**location, **({"block": self.block} if self.block else {})}


class FileSource(Protocol):
    """Storage of one kind, accessed with one block. Addresses have no generation here."""

    def find(self, url: str, generation: str | None) -> RemoteFile | None:
        """Return the file at this address, now or in this generation; None if there is none."""

    def list(self, start: str) -> Iterable[RemoteFile]:
        """Return all files whose address begins with `start`."""

    def fetch(self, file: RemoteFile, write: Callable[[bytes], object]) -> None:
        """Pass the bytes of the file's generation to `write`, in order. Raises InputError if they are gone."""


def source_fault(name: str) -> str:
    """Return why files at this address cannot be read here; empty if they can."""
    scheme = name.partition("://")[0]
    known = sorted(entry_points(group=GROUP).names)
    return "" if scheme in known else f"{name}: nothing here reads {scheme}://; possible: {', '.join(known) or 'none'}"


@functools.cache
def open_source(scheme: str, block: str | None) -> FileSource:
    """Return this process's source of such files. Raises InputError if there is none, or a package is missing."""
    for found in entry_points(group=GROUP, name=scheme):
        try:
            opened: FileSource = found.load()(block)
        except ImportError as error:
            raise InputError(
                f"files at {scheme}:// need the package {error.name}, which is not installed; "
                "for gs://, install crucible-lineage[gcp]"
            ) from error
        return opened
    raise InputError(source_fault(f"{scheme}://"))


def find_remote(name: str, block: str | None, session: Session) -> list[RemoteFile]:
    """Return the file at an address, or those that match a pattern (`*`, `?`, `[`; `**` for any depth), by address.

    `#` and digits at the end select a generation, which is not looked up if the local store knows it. Raises InputError
    if there is no file at an address without a pattern.
    """
    url, generation = split_address(name)
    if generation and (known := session.store.mark(_generation(url, generation))):
        return [RemoteFile(url, generation, known["size"], known["crc32c"], block)]
    source = open_source(url.partition("://")[0], block)
    wildcard = _WILD.search(url)
    if generation is None and wildcard:
        listed = [file for file in source.list(url[: wildcard.start()]) if not file.url.endswith("/")]
        matches = re.compile(_expression(url)).fullmatch
        same = [file for file in listed if file.url == url]  # a name that looks like a pattern
        found = same or [file for file in listed if matches(file.url)]
    elif file := source.find(url, generation):
        found = [file]
    else:
        raise InputError(f"file {name} does not exist, or is not accessible; correct the address or the block")
    return sorted((replace(file, block=block) for file in found), key=lambda file: file.url)


def remote_checksums(file: RemoteFile, session: Session, *, present: bool = False) -> FileChecksums:
    """Return the checksums, downloading once for each generation; with `present`, the cache has the file then."""
    name = _generation(file.url, file.generation)
    known = FileChecksums.from_json(stored) if (stored := session.store.mark(name)) else None
    if known is None or (present and not session.cache.holds(known.sha256)):
        known = _download(file, session)
        session.store.set_mark(name, known.to_json())
    if not present:
        return known
    return replace(known, mtime_ns=session.cache.path(known.sha256).stat().st_mtime_ns)


def _generation(url: str, generation: str) -> str:
    """Return the name under which the store has the checksums of a file in this generation."""
    return f"checksums {url} {generation}"


def _download(file: RemoteFile, session: Session) -> FileChecksums:
    scan = Scan()
    source = open_source(file.url.partition("://")[0], file.block)

    def fetch(target: Path) -> str:
        with target.open("wb") as stream:

            def write(block: bytes) -> int:
                scan.update(block)
                traffic.count(received=len(block))
                return stream.write(block)

            source.fetch(file, write)
        arrived = scan.checksums(0)
        if file.crc32c is not None and arrived.crc32c != file.crc32c:
            raise ChecksumError(
                f"{file.address} arrived with CRC32C {crc32c_text(arrived.crc32c)}, the storage has "
                f"{crc32c_text(file.crc32c)}; the download was discarded; run the same command again"
            )
        return arrived.sha256

    session.cache.receive(fetch)
    return scan.checksums(0)


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern; as on disk, only `**` crosses folders."""
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression, end = "", 0
    for wildcard in _WILD.finditer(pattern):
        token = wildcard[0]
        one_of = f"[^{token[2:]}" if token.startswith("[!") else token
        expression += re.escape(pattern[end : wildcard.start()]) + tokens.get(token, one_of)
        end = wildcard.end()
    return expression + re.escape(pattern[end:])


LOST = (ChecksumError, InputError, NotFoundError, RefusedError)
"""The errors of reading a file whose bytes are lost or damaged."""


def cached_file(dataset: DatasetRef, file: FileRef, session: Session) -> Path:
    """Return the cache's copy of a file, fetched if need be. Raises ChecksumError if the fetched bytes are wrong."""
    return session.cache.get(file.sha256, lambda target: _from_crucible(dataset, file, target, session))


def place_file(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> bool:
    """Copy a file, verified by its hash. Return whether the cache's copy was replaced. Raises ChecksumError."""
    return session.cache.copy_to(file.sha256, target, lambda copy: _from_crucible(dataset, file, copy, session))


def _from_crucible(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> str:
    """Fetch a file from the outbox or from Crucible; return its SHA-256."""
    if (waiting := session.outbox.file(dataset.mfid, file.sha256)) is not None:
        shutil.copyfile(waiting, target)
        return file_sha256(target)
    stored = next(
        (listed for listed in session.client.datasets.list_files(dataset.mfid) if listed.filename == file.name), None
    )
    if stored is None:
        raise InputError(
            f"dataset {dataset.mfid} ({dataset.name!r}) no longer has the file {file.name!r} at Crucible; "
            f"{way_out(dataset.mfid)}"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        try:
            session.client.files.download(stored, folder).replace(target)
        except LOST as error:
            error.args = (f"{error}; {way_out(dataset.mfid)}",)
            raise
    return stored.sha256_hash or file_sha256(target)  # the download has verified the hash


def way_out(mfid: str) -> str:
    """Return what can be done about lost bytes of a dataset, for a message."""
    return f"to restore it, from a copy or remade: crucible-lineage reproduce {mfid} --restore"


def send_again(client: CrucibleClient, mfid: str, filename: str, sha256: str, path: Path) -> None:
    """Upload a file's bytes, once more if the service keeps old ones. Raises InputError if it still returns others."""
    uploaded = client.files.upload(mfid, path, filename=filename)
    if has_bytes(client, mfid, filename, sha256):
        return
    client.files.delete(uploaded.file.mfid)
    client.files.upload(mfid, path, filename=filename)
    if not has_bytes(client, mfid, filename, sha256):
        raise InputError(f"Crucible still returns other bytes of {filename} than were sent")


def has_bytes(client: CrucibleClient, mfid: str, filename: str, sha256: str) -> bool:
    """Return whether Crucible has the bytes of a file, by reading them."""
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
        for stored in client.files.list(mfid):
            if stored.filename == filename:
                try:
                    return file_sha256(client.files.download(stored, folder)) == sha256
                except LOST:
                    return False
    return False
