"""MFIDs: Crucible's identifiers, made from the clock or derived from a recipe.

An MFID is 16 bytes in 26 symbols of the lowercase Crockford alphabet. The bytes are an early-draft UUID version 7:
36 bits of Unix seconds, 12 bits of the upper fraction of the second, 4 bits of version, 12 bits of the lower fraction,
2 bits of variant, 14 bits of sequence, 48 random bits. A derived MFID keeps the 48 leading time bits of its youngest
parent, so that it sorts beside it, has version 8, and takes the 74 other bits from SHA-256 over the recipe.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.errors import InputError

EMBEDDED_USER = "local"  # username of the account of an embedded Crucible; its id is another one in each of them
ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", re.ASCII)
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# By version of the recipe. Those of measured files have none.
RECIPE_TAGS = {1: b"crucible-lineage/recipe/1\n", 2: b"crucible-lineage/recipe/2\n"}
CODE_TAG = b"crucible-lineage/code/2\n"  # of fingerprints; here because stored values are keyed by both tags
NO_TIME = bytes(6)  # time bits in ids of measured files without a known time
_PATTERN = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
_AS_DIGITS = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # the digits of int(text, 32)
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_lock = threading.Lock()
_last_tick = 0
_sequence = 0
_PROJECT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,24}")
PROJECT_ID_RULE = "a project id has 3 to 25 letters, digits, _ and -, and begins with a letter or digit"


def is_project_id(text: str) -> bool:
    """Return whether a new project may have this id; a service may have older projects with other ids."""
    return _PROJECT_ID.fullmatch(text) is not None


def is_mfid(text: object) -> bool:
    """Return whether `text` has the form of an MFID: 26 lowercase symbols, no i, l, o, u."""
    return isinstance(text, str) and _PATTERN.fullmatch(text) is not None


def require_mfid(text: str) -> None:
    """Raise InputError unless `text` has the form of an MFID."""
    if not is_mfid(text):
        raise InputError(f"{text!r} is not an MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")


def is_orcid(text: str) -> bool:
    """Return whether `text` has the form of an ORCID."""
    return ORCID.fullmatch(text) is not None


def has_derived_id(mfid: str) -> bool:
    """Return whether the id was derived from a recipe, not made from the clock."""
    return is_mfid(mfid) and mfid_bytes(mfid)[6] >> 4 == 8


def mfid_from_bytes(raw: bytes) -> str:
    """Return the MFID of 16 bytes."""
    if len(raw) != 16:
        raise ValueError(f"an MFID is made of 16 bytes, not {len(raw)}")
    number = int.from_bytes(raw, "big") << 2  # 130 bits in 26 symbols: the last two are zero
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def mfid_bytes(mfid: str) -> bytes:
    """Return the 16 bytes of an MFID. Raises ValueError for other texts."""
    if not is_mfid(mfid):
        raise ValueError(f"not an MFID: {mfid!r} (26 symbols of {ALPHABET})")
    return (int(mfid.translate(_AS_DIGITS), 32) >> 2).to_bytes(16, "big")


def new_mfid(moment: datetime | None = None) -> str:
    """Return a new MFID for `moment`, by default now. It is unique within the process."""
    global _last_tick, _sequence
    ticks = _ticks(moment) if moment else (time.time_ns() << 24) // 1_000_000_000
    with _lock:
        _sequence = _sequence + 1 if ticks == _last_tick else 0
        _last_tick = ticks
        sequence = _sequence & 0x3FFF
    high, low = ticks >> 12, ticks & 0xFFF
    number = high << 80 | 7 << 76 | low << 64 | 0b10 << 62 | sequence << 48 | int.from_bytes(os.urandom(6), "big")
    return mfid_from_bytes(number.to_bytes(16, "big"))


def mfid_time(mfid: str) -> datetime:
    """Return the moment in an MFID's time bits, in UTC, to a quarter of a millisecond."""
    bits = int.from_bytes(mfid_bytes(mfid)[:6], "big")
    return datetime.fromtimestamp((bits >> 12) + (bits & 0xFFF) / 4096, UTC)


def time_bits(source: str | datetime) -> bytes:
    """Return the 6 leading bytes of an MFID, or of an MFID for that moment."""
    if isinstance(source, str):
        return mfid_bytes(source)[:6]
    return (_ticks(source) >> 12).to_bytes(6, "big")


def is_timed(mfid: str) -> bool:
    """Return whether the id has time bits."""
    return time_bits(mfid) != NO_TIME


def youngest(mfids: Iterable[str]) -> str:
    """Return the MFID with the latest time bits. Raises InputError for none."""
    latest = max(mfids, default=None)  # the time bits come first, and symbols sort like their values
    if latest is None:
        raise InputError(
            "a derived id takes its time from the youngest parent, but there is no parent; "
            "give the step an input, or register the files with their time of measurement"
        )
    return latest


def canonical_json(value: object) -> bytes:
    """Return JSON with one spelling: sorted keys, no blanks, unescaped UTF-8. Raises ValueError for NaN and infinities.

    Whole numbers are written without a point: 3.0 equals 3, and a database may return one for the other.
    """
    try:
        text = _encode(value)
    except TypeError:  # a mapping that is not a dict
        return _encode(_whole(value)).encode()
    # Few values have a whole number with a point, and searching the text is far faster than searching the value.
    return (_encode(_whole(value)) if ".0" in text else text).encode()


def derive_mfid(recipe: Mapping[str, Any], time_source: str | datetime) -> str:
    """Return the MFID of a recipe, which is the same on every machine and at any time.

    `time_source`, the youngest origin's MFID or the moment of acquisition, gives the 48 leading bits. The rest is
    SHA-256 over the tag of the recipe's version and its canonical JSON (self-delimiting, so no two recipes share one
    text). Raises InputError for an unknown version of recipes.
    """
    tag = RECIPE_TAGS.get(recipe.get("version", 1))
    if tag is None:
        raise InputError(f"recipes of version {recipe['version']!r} are not supported; update crucible-lineage")
    return mfid_of_content(tag + canonical_json(recipe), time_bits(time_source), version=8)


def mfid_of_content(content: bytes, leading: bytes, *, version: int) -> str:
    """Return the MFID with these 6 leading bytes and this version; the rest is SHA-256 of the content."""
    digest = int.from_bytes(hashlib.sha256(content).digest(), "big") >> (256 - 74)
    high = int.from_bytes(leading, "big")
    number = high << 80 | version << 76 | (digest >> 62) << 64 | 0b10 << 62 | digest & ((1 << 62) - 1)
    return mfid_from_bytes(number.to_bytes(16, "big"))


def _ticks(moment: datetime) -> int:
    """Return units of 2**-24 seconds since the epoch. Raises ValueError for naive or too distant moments."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; an id made from it would differ between machines")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if not 0 <= microseconds < (1 << 36) * 1_000_000:
        raise ValueError(f"{moment.isoformat()} is outside the years that an MFID can hold (1970 to 4147)")
    return (microseconds << 24) // 1_000_000


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _whole(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
