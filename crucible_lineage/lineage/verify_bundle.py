"""Check a bundle of datasets offline: ids, hashes, links, completeness. Python 3.9 or newer, nothing else.

    python verify.py [FOLDER]

FOLDER is the unpacked bundle, by default the folder of this file. Every dataset is compared with its provenance record:
its id is derived again from its recipe, the files that were made and used have to exist with their SHA-256, used
datasets have to be linked as parents, and all datasets have to be ancestors of the one that the bundle is about.
Exit code 0: all is as recorded; 1: something is not; 2: there is no bundle to check. To rule out that the whole bundle
was exchanged, compare the printed SHA-256 of bundle.json with the one from its maker.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

FORMAT = "crucible-lineage/bundle/1"
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TAGS = {1: b"crucible-lineage/recipe/1\n", 2: b"crucible-lineage/recipe/2\n"}  # by the version of the recipe
KEY = "crucible_lineage"
DERIVED = "is_derived_from"
MADE_HERE = {"bundle.json", "verify.py"}  # not in the list of files: the list itself, and this program


def main() -> int:
    """Check the bundle, print the findings and return the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    try:
        content = (folder / "bundle.json").read_bytes()
        bundle = json.loads(content)
    except (OSError, ValueError) as error:
        print(f"there is no bundle to check in {folder}: {error}")
        return 2
    if bundle.get("format") != FORMAT:
        print(f"bundle.json has the format {bundle.get('format')!r}, this program reads {FORMAT}")
        return 2
    findings = list(all_findings(folder, bundle))
    for finding in findings:
        print(f"WRONG: {shown(finding)}")
    for note in notes(folder, bundle):
        print(f"note: {shown(note)}")
    files = sum(len(dataset["files"]) for dataset in bundle["datasets"])
    print(f"SHA-256 of bundle.json: {hashlib.sha256(content).hexdigest()}")
    scope = f"{amount(len(bundle['datasets']), 'dataset')}, {amount(files, 'file')} of theirs"
    print(f"{amount(len(findings), 'finding') if findings else 'no findings'} in {scope}")
    return 1 if findings else 0


def all_findings(folder: Path, bundle: Any) -> Iterator[str]:
    """Check that files, records, recipes and links lead to the ids in the bundle's list."""
    yield from of_files(folder, bundle)
    yield from of_datasets(folder, bundle)
    yield from of_links(bundle)


def amount(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def of_files(folder: Path, bundle: Any) -> Iterator[str]:
    """Check that every listed file exists with its bytes, and no other."""
    listed = {entry["path"]: entry for entry in bundle["others"]}
    listed.update((entry["path"], entry) for dataset in bundle["datasets"] for entry in dataset["files"])
    for path, entry in listed.items():
        location = inside(folder, path)
        if location is None or not location.is_file():
            yield f"the file {path} is not there"
        elif sha256(location) != entry["sha256"]:
            yield f"the file {path} holds other bytes than it did when the bundle was made"
    for location in sorted(folder.rglob("*")):
        name = location.relative_to(folder).as_posix()
        if location.is_file() and name not in listed and name not in MADE_HERE and "__pycache__" not in name:
            yield f"the file {name} does not belong to the bundle"


def of_datasets(folder: Path, bundle: Any) -> Iterator[str]:
    """Check every dataset against its record."""
    hashes = {  # of all files, also those whose bytes are not in the bundle
        dataset["mfid"]: {entry["name"]: entry["sha256"] for entry in [*dataset["files"], *dataset["absent"]]}
        for dataset in bundle["datasets"]
    }
    links = {(link["parent"], link["child"]): link["relationship"] for link in bundle["links"]}
    for dataset in bundle["datasets"]:
        mfid = dataset["mfid"]
        stored = record_of(folder, dataset)
        if stored.get("unique_id") != mfid:
            yield f"{mfid}: its record is lost, or is that of another dataset"
            continue
        record = (stored.get("scientific_metadata") or {}).get(KEY)
        if not isinstance(record, dict):
            if version(mfid) == 8:
                yield f"{mfid}: its id was derived from a recipe, but it has no provenance record"
            continue
        yield from of_identity(mfid, record)
        yield from of_generated(mfid, record, hashes[mfid])
        yield from of_used(mfid, record, hashes, links)


def of_identity(mfid: str, record: Any) -> Iterator[str]:
    """Check that the registration was finished and the id follows from the recipe."""
    registrar = record.get("registrar")
    if record.get("status") != "complete" or (registrar and registrar not in (record.get("completed") or {})):
        yield f"{mfid}: its registration was not finished when the bundle was made"
    recipe = record.get("recipe")
    if recipe is None:
        if "withheld" not in record:
            yield f"{mfid}: its record has no recipe"
        return
    parents = [parent for _, parent, _ in inputs_of(recipe)]
    if version(mfid) == 8:
        time_bits = max([number(parent) >> 80 for parent in parents] or [number(mfid) >> 80])
        if number(mfid) != derived(recipe, time_bits):
            yield f"{mfid}: its id is not that of its recipe; a parameter, a parent, the code or a file was edited"
    elif recipe.get("kind") == "step":
        yield f"{mfid}: a step made it, and its id was not derived from a recipe (a server may have chosen it)"
    by_origin = recipe.get("version", 1) > 1
    used = [
        (entry["role"], (by_origin and entry.get("origin")) or entry["mfid"], named(entry))
        for entry in record.get("used", [])
    ]
    recorded = [(role, source, sorted(files.items())) for role, source, files in inputs_of(recipe)]
    by_hand = recipe.get("kind") == "files"  # each origin once, without files
    if sorted(set(map(repr, used)) if by_hand else map(repr, used)) != sorted(map(repr, recorded)):
        yield f"{mfid}: the inputs in its record and in its recipe differ"


def of_generated(mfid: str, record: Any, present: dict[str, str]) -> Iterator[str]:
    """Check that the dataset has the files that were registered with it, and no others."""
    expected = dict(named({"files": record.get("generated")}))
    if "attached" in record:
        expected[record["attached"]["name"]] = record["attached"]["sha256"]
    for name, digest in expected.items():
        if name not in present:
            yield f"{mfid}: its file {name} is missing"
        elif present[name] != digest:
            yield f"{mfid}: its file {name} has another SHA-256 than was registered"
    for name in present:
        if name not in expected and expected:
            yield f"{mfid}: its file {name} was not registered with it"


def of_used(
    mfid: str, record: Any, hashes: dict[str, dict[str, str]], links: dict[tuple[str, str], str]
) -> Iterator[str]:
    """Check that used datasets are in the bundle with the used files, and linked as parents."""
    for entry in record.get("used", []):
        parent = entry["mfid"]
        if version(parent) is None:
            continue  # a placeholder: see the notes
        if parent not in hashes:
            yield f"{mfid}: it was made from {parent}, which is not in the bundle"
            continue
        if links.get((parent, mfid)) != DERIVED:
            yield f"{mfid}: it was made from {parent}, but has no link to it"
        for name, digest in named(entry):
            if hashes[parent].get(name) != digest:
                yield f"{mfid}: it was made from the file {name} of {parent}, which is missing or another one now"


def of_links(bundle: Any) -> Iterator[str]:
    """Check that links connect datasets in the bundle, close no cycle, and lead to its result."""
    known = {entry["mfid"] for part in ("datasets", "samples", "hidden") for entry in bundle[part]}
    parents: dict[str, list[str]] = {}
    for link in bundle["links"]:
        parents.setdefault(link["child"], []).append(link["parent"])
        for end in (link["parent"], link["child"]):
            if end not in known:
                yield f"a link names {end}, which is not in the bundle"
    focus = bundle["about"]
    reached: set[str] = set()
    waiting = [focus]
    while waiting:
        mfid = waiting.pop()
        if mfid not in reached:
            reached.add(mfid)
            waiting.extend(parents.get(mfid, []))
    for mfid in sorted(known - reached):
        yield f"{mfid} is not among what {focus} was made from"
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        yield f"links close a cycle among {', '.join(sorted(set(error.args[1])))}"


def notes(folder: Path, bundle: Any) -> Iterator[str]:
    """Yield notes about what could not be checked, with the reason."""
    for dataset in bundle["datasets"]:
        mfid = dataset["mfid"]
        for entry in dataset["absent"]:
            yield f"{mfid}: the bytes of {entry['name']} are not in the bundle: {entry['why']}"
        record = (record_of(folder, dataset).get("scientific_metadata") or {}).get(KEY)
        if not isinstance(record, dict):
            yield f"{mfid}: registered without a provenance record; only the hashes of its files were compared"
        elif "withheld" in record:
            yield f"{mfid}: its id could not be derived: what it was made from was not to be seen by the bundle's maker"
        elif version(mfid) != 8:
            yield f"{mfid}: its id comes from the clock and does not depend on its content"


def record_of(folder: Path, dataset: Any) -> Any:
    """Return a dataset's record, or an empty one."""
    location = inside(folder, dataset["record"])
    try:
        record = json.loads(location.read_bytes()) if location else {}
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def inputs_of(recipe: Any) -> list[tuple[str, str, dict[str, str]]]:
    """Return (role, origin, {name: SHA-256}) of each input in a recipe."""
    roles = recipe.get("inputs") or {}
    return [(role, entry["origin"], entry["files"]) for role, entries in roles.items() for entry in entries]


def named(entry: Any) -> list[tuple[str, str]]:
    """Return (name, SHA-256) of each file in an entry of a record, sorted."""
    return sorted((file["name"], file["sha256"]) for file in entry.get("files") or [])


def inside(folder: Path, path: str) -> Path | None:
    """Return the location of a file in the folder; None for a path that leads out of it."""
    location = folder / path
    return location if folder.resolve() in location.resolve().parents else None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def version(mfid: str) -> int | None:
    """Return 8 for an id derived from a recipe, 7 for one from the clock, None if it is not an MFID."""
    if len(mfid) != 26 or set(mfid) - set(ALPHABET):
        return None
    return number(mfid) >> 76 & 0xF


def number(mfid: str) -> int:
    """Return the 128 bits of an MFID."""
    value = 0
    for symbol in mfid:
        value = value * 32 + ALPHABET.index(symbol)
    return value >> 2


def whole(value: object) -> object:
    """Replace integral floats by integers: 3.0 becomes 3."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def derived(recipe: Any, time_bits: int) -> int:
    """Return the 128 bits of the id of a recipe, with these 48 bits of time."""
    text = json.dumps(whole(recipe), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = int.from_bytes(hashlib.sha256(TAGS[recipe.get("version", 1)] + text.encode()).digest(), "big") >> (
        256 - 74
    )
    return time_bits << 80 | 8 << 76 | digest >> 62 << 64 | 0b10 << 62 | digest & (1 << 62) - 1


def shown(text: str) -> str:
    """Escape characters that a terminal would obey."""
    return "".join(symbol if symbol.isprintable() else ascii(symbol)[1:-1] for symbol in text)


if __name__ == "__main__":
    sys.exit(main())
