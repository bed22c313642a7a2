"""Google Cloud Storage as a source of input files, through prefect-gcp's blocks.

`open_gcs` is the entry point `gs` of the group `crucible_lineage.file_sources`; it is imported only for an address gs://....
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, Unauthorized
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from prefect.exceptions import PrefectException
from prefect_gcp import GcpCredentials, GcsBucket
from requests import RequestException

from crucible_lineage.errors import InputError, RunError
from crucible_lineage.pipeline.plan.fetch import RemoteFile

CREDENTIALS = "gcp-credentials/"
LISTED = "items(name,generation,size,crc32c),nextPageToken"


def open_gcs(block: str | None) -> GcsFiles:
    """Open Google's storage with a block, `NAME` or `gcp-credentials/NAME`, or this machine's own credentials."""
    if block is None:
        try:
            return GcsFiles(GcpCredentials().get_cloud_storage_client())
        except DefaultCredentialsError as error:
            raise InputError(
                "this machine has no Google credentials for gs://; name a GcsBucket block with `block: NAME`, or run "
                "`gcloud auth application-default login`"
            ) from error
    try:
        if block.startswith(CREDENTIALS):
            credentials = GcpCredentials.load(block.removeprefix(CREDENTIALS), _sync=True)
            return GcsFiles(credentials.get_cloud_storage_client())
        bucket = GcsBucket.load(block, _sync=True)
        return GcsFiles(bucket.gcp_credentials.get_cloud_storage_client(), bucket.bucket)
    except (ValueError, PrefectException) as error:
        name = block if block.startswith(CREDENTIALS) else f"gcs-bucket/{block}"
        raise InputError(
            f"there is no usable block {name} at this Prefect server: {error}\ncreate one, or correct the name"
        ) from error


class GcsFiles:
    """A `FileSource`. With `only`, it is restricted to one bucket."""

    def __init__(self, client: Any, only: str | None = None) -> None:
        self._client = client
        self._only = only

    def find(self, url: str, generation: str | None) -> RemoteFile | None:
        """Return the object at this address, in its current or that generation; None if there is none."""
        bucket, name = self._parts(url)
        with _errors_of_bucket(f"look for {url}"):
            blob = self._client.bucket(bucket).get_blob(name, generation=int(generation) if generation else None)
        return _remote(url, blob) if blob else None

    def list(self, start: str) -> Iterator[RemoteFile]:
        """Yield all objects whose address begins with `start`, a thousand per request."""
        bucket, prefix = self._parts(start)
        with _errors_of_bucket(f"list {start}*"):
            for blob in self._client.list_blobs(bucket, prefix=prefix, fields=LISTED):
                yield _remote(f"gs://{bucket}/{blob.name}", blob)

    def fetch(self, file: RemoteFile, write: Callable[[bytes], object]) -> None:
        """Download the bytes of that generation as stored; a broken download is resumed."""
        bucket, name = self._parts(file.url)
        blob = self._client.bucket(bucket).blob(name, generation=int(file.generation))
        with _errors_of_bucket(f"download {file.address}"):
            blob.download_to_file(SimpleNamespace(write=write), raw_download=True, checksum=None)  # the caller checks

    def _parts(self, url: str) -> tuple[str, str]:
        bucket, _, name = url.removeprefix("gs://").partition("/")
        if self._only and bucket != self._only:
            raise InputError(f"{url}: the block gives access to the bucket {self._only!r}, not to {bucket!r}")
        return bucket, name


def _remote(url: str, blob: Any) -> RemoteFile:
    crc32c = int.from_bytes(base64.b64decode(blob.crc32c), "big") if blob.crc32c else None
    return RemoteFile(url, str(blob.generation), int(blob.size), crc32c)


@contextmanager
def _errors_of_bucket(action: str) -> Iterator[None]:
    """Convert errors of Google's libraries. They have retried for two minutes where that may help."""
    try:
        yield
    except NotFound as error:
        raise InputError(f"could not {action}: it does not exist") from error
    except (Forbidden, Unauthorized) as error:
        raise InputError(f"could not {action}: these credentials may not ({error.code}); ask for access") from error
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise RunError(
            f"could not {action}: {type(error).__name__}; run the same command again when it is back"
        ) from error
