"""Results that still hold although they are declared no more: of a step, output or variant that was taken out."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from crucible_lineage.pipeline.plan.expand import Instance

__all__ = ["undeclared"]


def undeclared(held: Collection[str], instances: Iterable[Instance], pipeline: str) -> tuple[str, ...]:
    """Return the places of such results, as `step/output/scope`.

    `held` are the places in which results of the pipeline hold. A place of other data is none of them: its result holds
    beside the others.
    """
    declared = {key for instance in instances for keys in instance.places.values() for key in keys}
    if not declared:
        return ()
    parts = {_outside(key) for key in declared}
    about = {_scope(key).split(", ")[0] for key in declared}
    return tuple(
        key.removeprefix(f"{pipeline}/")
        for key in sorted(set(held) - declared)
        if _outside(key) not in parts or _scope(key).split(", ")[0] in about
    )


def _outside(key: str) -> str:
    """`pipeline/step/output` of a place."""
    return "/".join(key.split("/", 3)[:3])


def _scope(key: str) -> str:
    return key.split("/", 3)[3]
