"""The address of Crucible and the data folder: from arguments, else the environment, else the configuration file.

`CRUCIBLE_API_URL` and `CRUCIBLE_API_KEY`, or the configuration file of the official client (`config.ini` of
nano-crucible), name a service. Without them, Crucible is the embedded one in the data folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_config_dir, user_data_dir

from crucible_lineage.errors import InputError, nearest

API_PATH = "/api/v3"
JOBS_AT_ONCE = min(8, (os.cpu_count() or 1) + 2)  # steps of a run, unless it says otherwise

RETRIES = {"attempts": "CRUCIBLE_LINEAGE_RETRIES", "total_s": "CRUCIBLE_LINEAGE_RETRY_SECONDS",
           "asked_total_s": "CRUCIBLE_LINEAGE_RETRY_AFTER_SECONDS"}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """One Crucible and one data folder. `api_url` is None for the embedded Crucible in that folder."""

    data: Path
    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    source: str = "no address is set"

    @property
    def embedded(self) -> bool:
        """Whether Crucible is the embedded one in the data folder."""
        return self.api_url is None

    def describe(self) -> str:
        """Return a line that says which Crucible is used, and why."""
        if self.embedded:
            return f"Crucible: embedded, in {self.data / 'crucible'} ({self.source})"
        return f"Crucible: {self.api_url} ({self.source})"


def default_data_folder() -> Path:
    """Return `CRUCIBLE_LINEAGE_DATA`, or the user's data folder for crucible-lineage."""
    folder = os.environ.get("CRUCIBLE_LINEAGE_DATA")
    return Path(folder) if folder else Path(user_data_dir("crucible-lineage", appauthor=False))


def resolve_settings(
    *,
    data: Path | None = None,
    api_url: str | None = None,
    api_key: str | None = None,
) -> Settings:
    """Return the settings for these arguments.

    `data` without `api_url` requests the embedded Crucible in that folder. Address and key may come from different
    sources, such as the environment and the configuration file. Raises InputError if one of them is missing.
    """
    folder = (data or default_data_folder()).expanduser().absolute()
    if api_url is None and api_key is None and data is not None:
        return Settings(folder, source="a data folder was given")
    url, key = _configured(api_url=api_url, api_key=api_key)
    if not url and not api_key:
        return Settings(folder)
    if not url:
        raise InputError("an API key was given, but no address; give --url too, or set CRUCIBLE_API_URL")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"the address of Crucible must start with http:// or https://, this one does not: {url}")
    if not key:
        raise InputError(f"there is no API key for {url}; set CRUCIBLE_API_KEY or give --api-key")
    origin = "given" if api_url else "CRUCIBLE_API_URL" if os.environ.get("CRUCIBLE_API_URL") else "config.ini"
    return Settings(folder, api_address(url), key, source=f"address: {origin}")


def api_address(url: str) -> str:
    """Return the address of the API: a path is added to an address without one."""
    bare = url.rstrip("/")
    return bare if urlsplit(bare).path else f"{bare}{API_PATH}"


def key_in(file: Path) -> str:
    """Return the key that a file holds. Raises InputError if no request could carry it."""
    return valid_key(file.read_text(encoding="ascii", errors="replace").strip(), f"the key in {file}")


def valid_key(key: str, source: str = "the API key") -> str:
    """Return the key. Raises InputError, naming its source, if no request could carry it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{source} cannot be sent: it must be one line of visible ASCII characters, without blanks")
    return key


PUBLIC_URL = "https://crucible.lbl.gov/api/v3"  # default of nano-crucible 3.3.0


def official_access(url: str | None, key: str | None, mode: str | None) -> tuple[str, str, str | None]:
    """Return the address, the key and the privilege mode as the official client reads them.

    Raises InputError if there is no key.
    """
    url, key, mode = _configured(api_url=url, api_key=key, privilege_mode=mode)
    if not key:
        ways = f"give api_key, set CRUCIBLE_API_KEY, or write it into {_config_file()}"
        raise InputError(f"there is no API key for {url or PUBLIC_URL}: {ways}")
    return url or PUBLIC_URL, key, mode


def _configured(**given: str | None) -> list[str | None]:
    """Return these as given, else from CRUCIBLE_API_URL, CRUCIBLE_API_KEY, CRUCIBLE_PRIVILEGE_MODE, else the file."""
    stored = _sections(_config_file()).get("crucible", {})
    named = ((name, value or os.environ.get(f"CRUCIBLE_{name.upper()}")) for name, value in given.items())
    return [value or stored.get(name) or None for name, value in named]


def profile_settings(profile: str, *, data: Path | None = None) -> Settings:
    """Return the settings in a section of the official client's configuration. Raises InputError if incomplete."""
    path = _config_file()
    sections = _sections(path)
    if profile not in sections:
        raise InputError(f"profile {profile!r}: {path} has no section of that name; {nearest(profile, sections)}")
    url, key = sections[profile].get("api_url"), sections[profile].get("api_key")
    if not url or not key:
        raise InputError(f"profile {profile!r}: the section of {path} needs api_url and api_key")
    settings = resolve_settings(data=data, api_url=url, api_key=key)
    return replace(settings, source=f"profile {profile}")


def retries_from_environment() -> dict[str, float]:
    """Return the fields of the retry policy that the environment sets."""
    policy: dict[str, float] = {}
    for field_name, variable in RETRIES.items():
        if text := os.environ.get(variable):
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if not 0 <= value < float("inf") or (field_name == "attempts" and not (value >= 1 and value.is_integer())):
                unit = "a number of attempts, 1 or more" if field_name == "attempts" else "seconds, as in 90"
                raise InputError(f"{variable} is {text!r}; give {unit}")
            policy[field_name] = value
    return policy


def _config_file() -> Path:
    return Path(user_config_dir("nano-crucible")) / "config.ini"


def _sections(config_file: Path) -> dict[str, dict[str, str]]:
    """Return the sections of the file, without quotes around values, like the official client."""
    import configparser  # not needed by most sessions

    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(config_file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InputError(f"{config_file} cannot be read as a configuration file: {error}") from error
    return {
        name: {key: value.strip('"').strip("'") for key, value in parser[name].items()} for name in parser.sections()
    }
