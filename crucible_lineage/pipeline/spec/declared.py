"""The base of all that is declared: just the known keys, and frozen."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema

__all__ = ["Declared", "Folder"]


class Declared(BaseModel):
    """What is declared has just the keys that are known, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _folder(value: object) -> Path:
    if not isinstance(value, (str, Path)):
        raise ValueError("this is no path")
    return _path(value) if isinstance(value, str) else value


@lru_cache(64)
def _path(text: str) -> Path:
    return Path(text)


# Thousands of steps are declared in one folder, and making a path takes as long as reading the rest of a step.
Folder = Annotated[Path, PlainValidator(_folder), WithJsonSchema({"type": "string", "format": "path"})]
