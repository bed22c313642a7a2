"""Answers that fit into an assistant's window: what is too long is cut, and the answer says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MOST_CHARACTERS", "bounded", "cut_text"]

MOST_CHARACTERS = 20_000  # of an answer as JSON: chosen, some 6,000 tokens
MOST_ITEMS = 200  # of a list within an answer
MOST_TEXT = 2_000  # characters of a text within an answer
DEEPEST = 12


def bounded(answer: Mapping[str, object]) -> dict[str, Any]:
    """The answer, within MOST_CHARACTERS as JSON. What was cut is told under `cut`, with how much there is in all."""
    items, text = MOST_ITEMS, MOST_TEXT
    while True:
        cut: list[str] = []
        found = {key: _within(value, key, items, text, cut) for key, value in answer.items()}
        if cut:
            found["cut"] = cut[:20]
        if len(json.dumps(found, ensure_ascii=False, default=str)) <= MOST_CHARACTERS or items <= 1:
            return found
        items, text = items // 2, max(text // 2, 80)


def cut_text(text: str) -> str:
    """A text of MOST_CHARACTERS at the most; where it is cut it says so."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}\n... cut: {len(text)} characters in all"


def _within(value: object, path: str, items: int, text: int, cut: list[str], depth: int = 0) -> Any:
    if depth > DEEPEST:
        cut.append(f"{path}: nested more deeply than {DEEPEST} levels")
        return None
    if isinstance(value, str):
        if len(value) > text:
            cut.append(f"{path}: {len(value)} characters")
            return value[:text] + "…"
        return value
    if isinstance(value, Mapping):
        kept = list(value.items())[:items]
        if len(kept) < len(value):
            cut.append(f"{path}: {len(value)} entries")
        return {str(key): _within(one, f"{path}.{key}", items, text, cut, depth + 1) for key, one in kept}
    if isinstance(value, Sequence):
        kept_items = value[:items]
        if len(kept_items) < len(value):
            cut.append(f"{path}: {len(value)} items")
        return [_within(one, f"{path}[{at}]", items, text, cut, depth + 1) for at, one in enumerate(kept_items)]
    return value
