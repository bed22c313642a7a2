"""Where Crucible is and where local files go: arguments first, then the environment, then the configuration file.

The service is the one named by `CRUCIBLE_API_URL` and `CRUCIBLE_API_KEY`, or by the configuration file of the official
client (`config.ini` of nano-crucible). With none of these, Crucible is the embedded one in the data folder.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_config_dir, user_data_dir

from crucible_lineage.errors import InputError

__all__ = ["Settings", "default_data_folder", "resolve_settings"]


@dataclass(frozen=True)
class Settings:
    """One Crucible and one data folder. `api_url` is None for the embedded Crucible in that folder."""

    data: Path
    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    source: str = "no address is set"

    @property
    def embedded(self) -> bool:
        """True if Crucible runs inside this process, over the data folder."""
        return self.api_url is None

    def describe(self) -> str:
        """One line that says which Crucible is used, and why."""
        if self.embedded:
            return f"Crucible: embedded, in {self.data / 'crucible'} ({self.source})"
        return f"Crucible: {self.api_url} ({self.source})"


def default_data_folder() -> Path:
    """The user's data folder for crucible-lineage; `CRUCIBLE_LINEAGE_DATA` moves it."""
    named = os.environ.get("CRUCIBLE_LINEAGE_DATA")
    return Path(named) if named else Path(user_data_dir("crucible-lineage", appauthor=False))


def resolve_settings(
    *,
    data: Path | None = None,
    api_url: str | None = None,
    api_key: str | None = None,
    environment: Mapping[str, str] | None = None,
    config_file: Path | None = None,
) -> Settings:
    """The settings that hold for this call.

    `data` without `api_url` asks for the embedded Crucible in that folder. An address without a key, or a key without
    an address, is refused when it was given as an argument; a key alone in the environment goes with the address in
    the configuration file and the other way round.
    """
    folder = (data or default_data_folder()).expanduser().absolute()
    environment = os.environ if environment is None else environment
    if api_url is None and api_key is None and data is not None:
        return Settings(folder, source="a data folder was given")
    stored = _stored(config_file or Path(user_config_dir("nano-crucible")) / "config.ini")
    url = api_url or environment.get("CRUCIBLE_API_URL") or stored.get("api_url")
    key = api_key or environment.get("CRUCIBLE_API_KEY") or stored.get("api_key")
    if not url and not api_key:
        return Settings(folder)
    if not url:
        raise InputError("an API key was given, but no address; give --url too, or set CRUCIBLE_API_URL")
    if not key:
        raise InputError(f"there is no API key for {url}; set CRUCIBLE_API_KEY or give --api-key")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"the address of Crucible must start with http:// or https://, this one does not: {url}")
    origin = "given" if api_url else "CRUCIBLE_API_URL" if environment.get("CRUCIBLE_API_URL") else "config.ini"
    return Settings(folder, url.rstrip("/"), key, source=f"address: {origin}")


def _stored(config_file: Path) -> dict[str, str]:
    """What the official client's configuration file says; nothing if there is no such file."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(config_file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(f"{config_file} cannot be read as a configuration file: {error}") from error
    return dict(parser["crucible"]) if parser.has_section("crucible") else {}
