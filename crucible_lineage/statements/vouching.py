"""Who vouches for a statement: one function decides, by what its id seals and what Crucible says of it. Pure.

The id of a statement is derived from its content, and its content names its author. The author vouches for it while

- its content gives its id (metadata can be changed by other members),
- its registration is finished,
- it lies in the project that it names (a dataset can be moved),
- the account that Crucible says registered it is the author's (a dataset can be handed over).

Any other statement counts for nobody: it signs, certifies, trusts, revokes and lifts nothing. A hold still
blocks, since nobody may release what it holds without a name. Names of people in a record are decoration.
"""

from __future__ import annotations

from typing import NamedTuple

from crucible_lineage.errors import InputError
from crucible_lineage.ids import derive_mfid, has_derived_id
from crucible_lineage.json_types import JsonMapping, mapping
from crucible_lineage.marks import KEY, is_complete

LABEL = "statement"  # measurement, keyword, and kind of recipe
CHANGED = "its content was changed at Crucible after it was made"
UNFINISHED = "its registration was not finished; the same command again finishes it"


class Seal(NamedTuple):
    """Content that the id of a statement seals, empty if it is lost, and why nobody vouches for it, if so."""

    recipe: JsonMapping
    author: str
    fault: str = ""


def sealed_statement(record: JsonMapping, *, is_listed: bool = False) -> Seal | None:
    """Return the sealed content of a statement and who vouches for it; None for other datasets.

    `record` is Crucible's record with settled metadata, `is_listed` whether it has the keyword of statements, which
    nobody can remove.
    """
    metadata, mfid = record.get("scientific_metadata"), str(record.get("unique_id"))
    stored = mapping(mapping(metadata).get(KEY))
    recipe = mapping(stored.get("recipe"))
    is_labelled = record.get("measurement") == LABEL or (is_listed and has_derived_id(mfid))
    if metadata is None or not (is_labelled or recipe.get("kind") == LABEL):
        return None
    owner = owner_of(record)
    try:
        is_sealed = has_derived_id(mfid) and derive_mfid(dict(recipe), mfid) == mfid
    except (InputError, TypeError, ValueError):  # it is no recipe
        is_sealed = False
    if not is_sealed:
        return Seal({}, owner, CHANGED) if is_labelled else None
    if recipe.get("kind") != LABEL:
        return None
    author, project = str(recipe.get("by")), str(recipe.get("project"))
    if str(record.get("project_id") or "").casefold() != project.casefold():
        return Seal(recipe, author, f"it was moved here from project {project}")
    if owner != author:
        return Seal(recipe, author, f"its author is {author}, and at Crucible it belongs to {owner or 'nobody'}")
    return Seal(recipe, author, "" if is_complete(stored) else UNFINISHED)


def owner_of(record: JsonMapping) -> str:
    """Return the account that a dataset belongs to, as Crucible says."""
    return str(record.get("owner_orcid") or "")
