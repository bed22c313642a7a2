"""The base of all that is declared: just the known keys, and frozen."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Declared"]


class Declared(BaseModel):
    """What is declared has just the keys that are known, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
