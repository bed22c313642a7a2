"""Recompute the id of a dataset that crucible-lineage registered. Standard library only; see identity.md.

    python verify_id.py MFID [FILE]

FILE (by default stdin) is JSON: the provenance record, which is in the dataset's scientific metadata under the key
`crucible_lineage`, or a document that contains it, such as a whole record.json. The exit code is 0 if the id is that of
the recipe in the record, 1 if it is not, 2 if there is nothing to compare.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TAGS = {1: b"crucible-lineage/recipe/1\n", 2: b"crucible-lineage/recipe/2\n"}  # by version of the recipe


def number(mfid: str) -> int:
    """Return the 128 bits of an MFID."""
    value = 0
    for symbol in mfid:
        value = value * 32 + ALPHABET.index(symbol)
    return value >> 2


def whole(value: Any) -> Any:
    """Return the value with 3 for 3.0."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def derived(recipe: Any, time_bits: int) -> int:
    """Return the 128 bits derived from a recipe, after 48 bits of time."""
    text = json.dumps(whole(recipe), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = int.from_bytes(hashlib.sha256(TAGS[recipe.get("version", 1)] + text.encode()).digest(), "big") >> (
        256 - 74
    )
    return time_bits << 80 | 8 << 76 | digest >> 62 << 64 | 0b10 << 62 | digest & (1 << 62) - 1


def find(value: Any, key: str) -> Any:
    """Return the first value of a key at any depth; None if there is none."""
    if isinstance(value, dict) and key in value:
        return value[key]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for item in items if (found := find(item, key)) is not None), None)


def verdict(mfid: str, record: Any) -> tuple[bool, str]:
    """Return whether the id is that of the record's recipe, and a message."""
    recipe = record["recipe"]
    bits = number(mfid)
    inputs = [entry for entries in recipe.get("inputs", {}).values() for entry in entries]
    parents = [entry.get("origin") or entry["mfid"] for entry in inputs]
    if bits >> 76 & 0xF != 8:
        return False, f"{mfid} was drawn from the clock, not derived from a recipe"
    if not parents:  # measured files: when they were taken is not in the recipe
        same = (bits ^ derived(recipe, 0)) & ((1 << 80) - 1) == 0
        return same, f"{mfid} {'has' if same else 'does not have'} the 74 bits of its recipe (its time is not compared)"
    expected = derived(recipe, max(number(parent) >> 80 for parent in parents))
    same = bits == expected
    return same, f"{mfid} {'is' if same else 'is not'} the id of its recipe"


def main() -> int:
    """Run the program. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mfid")
    parser.add_argument("file", nargs="?", type=Path)
    arguments = parser.parse_args()
    if len(arguments.mfid) != 26 or set(arguments.mfid) - set(ALPHABET):
        parser.error(f"{arguments.mfid!r} is not an MFID: 26 of {ALPHABET}")
    try:
        document = json.loads(arguments.file.read_text("utf-8") if arguments.file else sys.stdin.read())
    except (OSError, ValueError) as error:
        parser.error(f"there is no JSON to read: {error}")
    record = find(document, "crucible_lineage") or document
    if not isinstance(record, dict) or not isinstance(record.get("recipe"), dict):
        parser.error("there is no provenance record in this JSON")
    same, message = verdict(arguments.mfid, record)
    print(message)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
