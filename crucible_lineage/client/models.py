"""Requests to Crucible and its answers, as frozen pydantic models.

Answers have the fields that are read here, and keep other keys; only what the service always sends is required. None
means "not given" or "not fetched"; an empty list means "fetched, none". Timestamps are the ISO 8601 strings that the
service sent; sizes are bytes, hashes 64 lowercase hex digits, ids MFIDs of 26 symbols. Source: the schemas in the
OpenAPI document. A misspelt field of a request is an error here, instead of being lost at the service.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from crucible_lineage.errors import nearest
from crucible_lineage.ids import is_mfid, new_mfid
from crucible_lineage.json_types import JsonObject
from crucible_lineage.marks import correct, is_own, settled
from crucible_lineage.refs import asks_for_deletion
from crucible_lineage.text.times import utc

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,24}$")]


def _mfid(text: str) -> str:
    if not is_mfid(text):
        raise ValueError(f"not an MFID: {text!r}")
    return text


def _iso(value: object) -> object:
    """Convert a datetime to ISO 8601; one without a time zone is in UTC, as for the service."""
    return utc(value).isoformat() if isinstance(value, datetime) else value


Mfid = Annotated[str, AfterValidator(_mfid)]
Timestamp = Annotated[str | datetime, BeforeValidator(_iso)]  # text after validation


class ReceivedModel(BaseModel):
    """Base of answers: unknown keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    def __getitem__(self, key: str) -> Any:
        """Return a field by its name on the wire, like the mappings of the official client."""
        if key in type(self).model_fields or key in (self.model_extra or {}):
            return getattr(self, key)
        raise KeyError(f"{key!r}; {nearest(key, type(self).model_fields)}")


class Person(ReceivedModel):
    """A user or service account, as others may see it."""

    unique_id: str
    first_name: str | None = None
    last_name: str | None = None
    username: str | None = None
    is_service_account: bool | None = None


class Member(Person):
    """A member of a project, with a role."""

    role: str | None = None


class Link(ReceivedModel):
    """A link of a resource. `direction` describes the other end: a source is a parent, a target is a child."""

    unique_id: str
    resource_type: str
    name: str | None = None
    direction: str | None = None
    relationship_type: str | None = None


class DeletedRecord(ReceivedModel):
    """The audit entry of a deleted resource."""

    id: int
    resource_id: str | None = None
    resource_type: str | None = None
    resource_name: str | None = None
    reason: str | None = None
    deleted_at: str | None = None


class DeletionRequest(DeletedRecord):
    """A request to delete a resource, and its outcome."""

    status: str


class _Described(ReceivedModel):
    """The fields that datasets, samples, projects and instruments share."""

    unique_id: str
    creation_time: str | None = None
    modification_time: str | None = None
    scientific_metadata: JsonObject | None = None
    capabilities: JsonObject | None = None

    @property
    def mfid(self) -> str:
        """The record's MFID, which the wire calls `unique_id`."""
        return self.unique_id


class _Owned(_Described):
    """The fields that datasets and samples share."""

    timestamp: str | None = None
    public: bool | None = None
    owner: Person | str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    links: list[Link] | None = None
    deletion_request: DeletionRequest | None = None

    @property
    def is_to_be_deleted(self) -> bool:
        """Whether a deletion was requested and not rejected."""
        return asks_for_deletion(self.deletion_request.status if self.deletion_request else None)


class Dataset(_Owned):
    """A dataset as Crucible stores it. `timestamp` is when it was measured, `size` is in bytes.

    In `scientific_metadata`, the statements of crucible-lineage are merged under one key for the record and one for the
    slots. `stored_metadata` are as the service has them.
    """

    resource_type: Literal["dataset"] = "dataset"
    dataset_name: str | None = None
    measurement: str | None = None
    data_type: str | None = None
    data_format: str | None = None
    session_name: str | None = None
    size: int | None = None
    instrument_name: str | None = None
    instrument_id: str | None = None
    instrument_mfid: str | None = None
    _stored: JsonObject | None = PrivateAttr(None)

    def model_post_init(self, _: Any, /) -> None:
        """Merge the statements in the metadata; corrected fields win over what another program has written since."""
        stored = self.scientific_metadata
        if stored and any(map(is_own, stored)):
            self._stored = stored
            self.__dict__["scientific_metadata"] = metadata = settled(stored)  # the model is frozen
            correct(self.__dict__, metadata)

    @property
    def stored_metadata(self) -> JsonObject | None:
        """The scientific metadata as the service has them."""
        return self.scientific_metadata if self._stored is None else self._stored


class Sample(_Owned):
    """A sample as Crucible stores it."""

    resource_type: Literal["sample"] = "sample"
    sample_name: str | None = None
    sample_type: str | None = None
    description: str | None = None


class Project(_Described):
    """A project as Crucible stores it."""

    resource_type: Literal["project"] = "project"
    project_id: str
    organization: str | None = None
    title: str | None = None
    status: str | None = None
    lead: Person | None = None
    role: str | None = None
    members: list[JsonObject] | None = None


class Instrument(_Described):
    """An instrument as Crucible stores it."""

    resource_type: Literal["instrument"] = "instrument"
    instrument_id: str | None = None
    instrument_name: str | None = None
    status: str | None = None


class FileRecord(ReceivedModel):
    """A file of a dataset. Without `storage_path` it cannot be downloaded (yet)."""

    mfid: str
    filename: str
    dataset_mfid: str | None = None
    size: int | None = None
    sha256_hash: str | None = None
    storage_backend: str | None = None
    storage_path: str | None = None
    etag: str | None = None

    @property
    def has_bytes(self) -> bool:
        """Whether the service has the file itself, not only a record of it."""
        return self.storage_path is not None and (self.storage_backend or "gcs") == "gcs"


class IngestionRequest(ReceivedModel):
    """A request to ingest a file, and its state."""

    id: int
    status: str
    file_mfid: str | None = None
    dataset_mfid: str | None = None
    ingestion_class: str | None = None
    time_created: str | None = None
    error_message: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether a worker may still process it."""
        return self.status in ("requested", "started")


class ResultRequest(ReceivedModel):
    """A request for a result of a dataset at an embedded Crucible, and its state: requested, complete or failed."""

    id: int
    kind: str
    dataset_mfid: str
    status: str
    parameters: dict[str, Any] = {}
    results: tuple[str, ...] = ()
    reason: str | None = None


class Thumbnail(ReceivedModel):
    """A preview picture; `thumbnail_b64str` is bare base64."""

    id: int
    thumbnail_name: str | None = None
    thumbnail_b64str: str | None = None
    mime_type: str | None = None


class Keyword(ReceivedModel):
    """A keyword of a dataset."""

    keyword: str


class Metadata(ReceivedModel):
    """The scientific metadata of one resource, as returned by the call that wrote them."""

    unique_id: str
    scientific_metadata: JsonObject


class SearchHit(ReceivedModel):
    """A resource whose metadata matched."""

    unique_id: str
    resource_type: str
    name: str | None = None
    rank: float | None = None
    scientific_metadata: JsonObject | None = None


class Account(ReceivedModel):
    """The account of the key."""

    user_unique_id: str
    user_info: Person | None = None


class NewAccount(Person):
    """An account that was just made, with its key, which is shown once."""

    api_key: str


class Profile(Person):
    """The owner of the key, with what the key may do."""

    authorization: JsonObject = Field(default_factory=dict)
    capabilities: dict[str, bool | None] = Field(default_factory=dict)


class SentModel(BaseModel):
    """Base of requests: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def body(self) -> JsonObject:
        """Return the fields that are set, as the body of the request."""
        return self.model_dump(exclude_none=True)


class _OwnedCreate(SentModel):
    """The fields that new datasets and samples share."""

    timestamp: Timestamp | None = None
    public: bool = False
    owner: str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: Mfid | None = None


class DatasetCreate(_OwnedCreate):
    """A dataset to create. The client chooses its MFID, not the service."""

    unique_id: Mfid = Field(default_factory=new_mfid)
    dataset_name: str | None = None
    measurement: str | None = None
    data_type: str | None = None
    data_format: str | None = None
    session_name: str | None = None
    size: int | None = None
    instrument_name: str | None = None
    instrument_id: str | None = None
    instrument_mfid: Mfid | None = None


class SampleCreate(_OwnedCreate):
    """A sample to create. Without `unique_id` the service chooses one, and the call cannot be repeated safely."""

    unique_id: Mfid | None = None
    sample_name: str | None = None
    sample_type: str | None = None
    description: str | None = None


class ProjectCreate(SentModel):
    """A project to create; exactly one of the four lead fields names its lead."""

    project_id: Slug
    organization: str
    title: str | None = None
    status: str | None = None
    project_lead: str | None = None
    project_lead_orcid: str | None = None
    project_lead_email: str | None = None
    project_lead_username: str | None = None


class InstrumentCreate(SentModel):
    """An instrument to create."""

    instrument_id: Slug
    instrument_name: str
    location: str
    manufacturer: str | None = None
    model: str | None = None
    description: str | None = None
    instrument_type: str | None = None
    other_id: str | None = None
    other_id_source: str | None = None
    owner: str | None = None
