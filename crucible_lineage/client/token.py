"""The token upload, for services without signed uploads: Google's own library writes to the bucket with a lent token.

Needs the extra `gcp`. The bytes go to Google's storage host whatever the API URL is.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from crucible_lineage.checksums import crc32c_text, require_unchanged
from crucible_lineage.client.http.connection import Session
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.transfer.outgoing import Meter, Outgoing, Progress, UploadedFile, complete, existing
from crucible_lineage.errors import ChecksumError, FileChangedError, InputError, ServerError, UnreachableError

__all__ = ["is_available", "upload_with_token"]

CHUNK_BYTES = 16 << 20  # the library holds a whole chunk for each worker
WORKERS = 2


def is_available() -> bool:
    """True if Google's library is installed."""
    try:
        return importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        return False


def upload_with_token(session: Session, outgoing: Outgoing, progress: Progress | None = None) -> UploadedFile:
    """The file, after the dataset has its bytes; FileChangedError if it changes meanwhile."""
    if not is_available():
        raise InputError("this upload needs Google's library: install crucible-lineage[gcp]; nothing was sent")
    answer = session.call(
        "POST",
        f"/datasets/{outgoing.dataset_mfid}/upload/initiate/multipart",
        outgoing.what,
        mfid=outgoing.dataset_mfid,
        body=outgoing.body(),
        repeatable=True,
    )
    if isinstance(answer, dict) and answer.get("existing_file") is not None:
        return existing(outgoing, parse(FileRecord, answer["existing_file"], outgoing.what))
    try:
        upload_id = str(answer["upload_id"])
        blob = _blob(answer, outgoing.filename)
    except (KeyError, TypeError) as cause:
        raise ServerError(f"could not {outgoing.what}: Crucible lent no token for storage") from cause
    _send(blob, outgoing)
    Meter(outgoing.checksums.size, progress).add(outgoing.checksums.size)
    require_unchanged(outgoing.path, outgoing.checksums)
    return UploadedFile(complete(session, outgoing, upload_id), existed=False)


def _blob(answer: Any, filename: str) -> Any:
    """The object to be written. Google's library is loaded here: it takes half a second, and has no types."""
    storage = importlib.import_module("google.cloud.storage")
    credentials = importlib.import_module("google.oauth2.credentials").Credentials(token=answer["access_token"])
    client = storage.Client(project=answer["project"], credentials=credentials)
    return client.bucket(answer["bucket"]).blob(f"{answer['object_prefix']}{filename}")


def _send(blob: Any, outgoing: Outgoing) -> None:
    """The object is there, with our checksum. Google's error messages may hold URLs, so only their kind is told."""
    transfer = importlib.import_module("google.cloud.storage.transfer_manager")
    corrupt = importlib.import_module("google.cloud.storage.exceptions").DataCorruption
    refused = importlib.import_module("google.auth.exceptions").GoogleAuthError
    unanswered = importlib.import_module("requests").RequestException
    what = outgoing.what
    try:
        transfer.upload_chunks_concurrently(
            str(outgoing.path), blob, chunk_size=CHUNK_BYTES, max_workers=WORKERS, worker_type=transfer.THREAD
        )
        blob.reload()
    except corrupt:
        raise ChecksumError(f"could not {what}: storage has other bytes than were sent") from None
    except refused:
        raise ServerError(f"could not {what}: storage does not accept the token that Crucible lent") from None
    except unanswered as cause:
        raise UnreachableError(f"could not {what}: no answer from storage ({type(cause).__name__})") from None
    except FileNotFoundError as cause:
        raise FileChangedError(f"{outgoing.path} is gone since it was read") from cause
    except Exception as cause:
        raise ServerError(f"could not {what}: storage answered with {type(cause).__name__}") from None
    if blob.crc32c not in (None, crc32c_text(outgoing.checksums.crc32c)):
        raise ChecksumError(f"could not {what}: storage has other bytes than were sent")
