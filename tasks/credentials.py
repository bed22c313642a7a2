"""The Prefect block with the address of a Crucible service and its key.

Prefect finds it by the entry point `prefect.collections`;
`prefect block register -m crucible_lineage.tasks.credentials` adds it to the UI's list of blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.blocks.abstract import CredentialsBlock
from pydantic import ConfigDict, Field, HttpUrl, SecretStr, field_validator

from crucible_lineage.settings import api_address

if TYPE_CHECKING:  # Prefect imports this module at every start of a server or worker
    from crucible_lineage.client import CrucibleClient


class CrucibleCredentials(CredentialsBlock):  # type: ignore[misc, unused-ignore]  # an untyped base in some releases
    """Address and key of a Crucible service.

    Flows take the block's name: `CrucibleConnection(block="NAME")`, or `{"block": "NAME"}` in JSON.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # the key is among it

    _block_type_name = "Crucible Credentials"
    _block_type_slug = "crucible-credentials"
    _description = "Address and API key of a Crucible service (Molecular Foundry data platform)."
    _documentation_url = HttpUrl("https://crucible.lbl.gov")

    url: str = Field(
        title="URL", description="Address of the API, as in https://crucible.lbl.gov/api/v3; /api/v3 may be omitted."
    )
    api_key: SecretStr = Field(title="API key", description="Results are registered by its owner.")

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("the address of Crucible starts with http:// or https://")
        return api_address(value)

    def get_client(self, state_folder: Path | None = None) -> CrucibleClient:
        """Return a client of the service. With a `state_folder`, interrupted uploads are resumed."""
        from crucible_lineage.client import CrucibleClient

        key: Any = self.api_key
        return CrucibleClient(self.url, key.get_secret_value(), state_folder=state_folder)
