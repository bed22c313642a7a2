"""What is sent to Crucible, as frozen pydantic models: a misspelt field is an error here and not a value lost there."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from crucible_lineage.client.models import Mfid, Timestamp
from crucible_lineage.ids import new_mfid

__all__ = ["DatasetCreate", "InstrumentCreate", "ProjectCreate", "RemoteFileCreate", "SampleCreate", "Sent"]

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,24}$")]


class Sent(BaseModel):
    """Base of what is sent: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def body(self) -> dict[str, Any]:
        """The fields that are set, as they go into the request."""
        return self.model_dump(exclude_none=True)


class DatasetCreate(Sent):
    """A dataset to be made. Its MFID is chosen here, not by the service."""

    unique_id: Mfid = Field(default_factory=new_mfid)
    dataset_name: str | None = None
    measurement: str | None = None
    data_type: str | None = None
    data_format: str | None = None
    session_name: str | None = None
    timestamp: Timestamp | None = None
    public: bool = False
    size: int | None = None
    owner: str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: Mfid | None = None
    instrument_name: str | None = None
    instrument_id: str | None = None
    instrument_mfid: Mfid | None = None


class SampleCreate(Sent):
    """A sample to be made. Without `unique_id` the service chooses one, and the call cannot be repeated safely."""

    unique_id: Mfid | None = None
    sample_name: str | None = None
    sample_type: str | None = None
    description: str | None = None
    timestamp: Timestamp | None = None
    public: bool = False
    owner: str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: Mfid | None = None


class ProjectCreate(Sent):
    """A project to be made; exactly one of the four lead fields names its lead."""

    project_id: Slug
    organization: str
    title: str | None = None
    status: str | None = None
    project_lead: str | None = None
    project_lead_orcid: str | None = None
    project_lead_email: str | None = None
    project_lead_username: str | None = None


class InstrumentCreate(Sent):
    """An instrument to be made."""

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


class RemoteFileCreate(Sent):
    """A file that stays where it is; Crucible keeps only a record of it."""

    filename: str
    storage_backend: str
    size: int | None = None
    sha256_hash: str | None = None
    access_note: str | None = None
