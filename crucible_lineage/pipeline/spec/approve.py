"""Whose signatures the results of a step need before they count."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crucible_lineage.pipeline.spec.declared import Declared

__all__ = ["Approve"]


class Approve(Declared):
    """`by` are names or ids of accounts, anybody of the project if there are none; `count` of them have to sign.

    `not: maker` leaves out the account that made the result.
    """

    by: tuple[str, ...] = ()
    count: int = Field(default=1, ge=1, le=20)
    other_than: Literal["maker"] | None = Field(default=None, alias="not")
