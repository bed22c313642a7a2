"""What a user sees and gets, as it was once: outputs of commands and lineages of pipelines, beside this file.

`GOLDEN=write` stores what there is now instead of comparing: read the difference, and say in the commit why it changed.
"""

from __future__ import annotations

import doctest
import os
import re
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
MFID = r"\b[0-9a-hjkmnp-tv-z]{26}\b"

# What differs from run to run, or by machine, and what stands in its place. The invocations give times of 2024 only.
VARYING = (
    (MFID, "<mfid>"),
    (r"\b[0-9a-f]{64}\b", "<sha256>"),
    (r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<run>"),
    (r"(?!2024)\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?UTC|Z|\+00:00)?", "<time>"),
    (r'("\w*seconds\w*": )[\d.e-]+', r"\1<number>"),
    (r"\b\d+(\.\d+)? (ms|s)\b", "<duration>"),
    (r"\b\d+(\.\d+)? [kMGT]?B\b", "<bytes>"),
    (r'("(bytes|free|total|used|size|crucible|records|cache|work)": )\d+', r"\1<number>"),
    (r"\b[0-9a-hjkmnp-tv-z]{5}…[0-9a-hjkmnp-tv-z]{5}\b", "<mfid>"),
    (r"\b[0-9a-f]{16}-[0-9a-f]{8}\b", "<machine>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"\b(?!2024)\d{4}-\d\d-\d\d\b", "<date>"),
    (r"--[0-9a-f]{8}\b", "--<attempt>"),
    (r'File "[^"<]*/(\w+\.py)", line \d+', r'File "<Python>/\1", line <number>'),
    (r"On Python .*", "On <Python and system>"),
    (r"(?m)^ +[~^]+$", "<marks of Python>"),
    (r'("(python|platform|version)": )".*"', r'\1"<version>"'),
    (r"\[SSL\].*?\(_ssl\.c:\d+\)", "<reason of OpenSSL>"),
    (r"(?<=\S) {2,}", "  "),  # widths of columns follow what varies
)


def normal(text: str, ids: Mapping[str, str], folder: Path) -> str:
    """Return text with names for the ids that have one, and without what varies."""
    for value, name in ids.items():
        text = text.replace(value, f"<{name}>")
    for data in ("store", "data"):
        text = text.replace(str(folder / data / "work"), "<steps>")
    text = text.replace(str(folder), "<folder>")
    for pattern, stand_in in VARYING:
        text = re.sub(pattern, stand_in, text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def with_numbers(names: Mapping[str, str], text: str) -> dict[str, str]:
    """Return these names of ids, and a number for each other id in the text, which shows where it comes again."""
    others = dict.fromkeys(mfid for mfid in re.findall(MFID, text) if mfid not in names)
    return {**names, **{mfid: f"mfid {number}" for number, mfid in enumerate(others, 1)}}


def compare(name: str, text: str) -> None:
    """Compare text with a stored file, or store it."""
    path = HERE / name
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{name} is not stored yet: GOLDEN=write"
    assert text == path.read_text(encoding="utf-8")


def run_examples(path: Path) -> None:
    """Run the examples in a text file, which doctest compares with what is below each."""
    failed, tried = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert tried
    assert not failed
