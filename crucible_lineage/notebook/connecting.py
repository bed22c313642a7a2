"""`connect`: a catalogue of one Crucible, found as the commands find it."""

from __future__ import annotations

import atexit
from os import PathLike
from pathlib import Path

from crucible_lineage.errors import InputError
from crucible_lineage.notebook.catalogue import Catalogue
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, profile_settings, resolve_settings

__all__ = ["connect"]


def connect(
    data: str | PathLike[str] | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    profile: str | None = None,
    project: str | None = None,
) -> Catalogue:
    """A catalogue of the Crucible that is named; without an argument, the one that commands without options use.

    `data` alone means the Crucible embedded in that folder. Without it, `url` and `api_key`, the variables
    CRUCIBLE_API_URL and CRUCIBLE_API_KEY, and the official client's configuration file name a service, in this order;
    `profile` is a section of that file. Where none does, it is the one embedded in the user's data folder. Questions
    are about `project`, unless they name another one. Nothing is asked before the first question. Close it, or use it
    in a `with`; else it is closed with the process. InputError if what is named is not there or does not go together.
    """
    catalogue = Catalogue(Session(_settings(data, url, api_key, profile)), project)
    atexit.register(catalogue.close)
    return catalogue


def _settings(data: str | PathLike[str] | None, url: str | None, api_key: str | None, profile: str | None) -> Settings:
    if data == "":  # which would be the current folder
        raise InputError("connect: the name of the data folder is empty; name one, or leave it out")
    folder = Path(data) if data is not None else None
    if profile is None:
        return resolve_settings(data=folder, api_url=url, api_key=api_key)
    if url is not None or api_key is not None:
        raise InputError("connect: a profile names the address and the key; give either, not both")
    return profile_settings(profile, data=folder)
