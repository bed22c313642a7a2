"""The source of a step: the project's own files that its fingerprint rests on, laid out as they are imported.

In the archive are whole modules and the files that `reads` names; of a command, its scripts and what these import from
beside them. Nothing outside the folders of code and declaration is taken, and nothing that is or holds a secret.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from crucible_lineage.amounts import size_text
from crucible_lineage.pipeline.functions.command import arguments_of
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.logs.secrets import Blotter

__all__ = ["Source", "archived", "lies_in", "source_of_code", "source_of_command"]

MOST_BYTES = 64 << 20  # chosen: of one file; larger data belong into a dataset
SECRET_NAMES = (".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", ".netrc", ".pgpass")
PRIVATE_KEY = b"PRIVATE KEY-----"
# A password in an address; one that is filled in when it runs is none.
_IN_ADDRESS = re.compile(rb"[a-z][a-z0-9+.-]{0,30}://[^\s/:@'\"]{1,100}:(?![{<$*%])[^\s/@'\"]{1,200}@", re.IGNORECASE)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Source:
    """Files by their place in the archive, and what was left out, with the reason."""

    files: Mapping[str, Path]
    left_out: tuple[str, ...] = ()


def source_of_command(job: Job) -> Source:
    """Return the files of a job's command."""
    folder = job.spec.folder
    arguments = arguments_of(job.spec.run or (), shell=job.spec.shell)
    named = enumerate(folder / part for part in arguments)
    scripts = [path for number, path in named if path.is_file() and (number or lies_in(path, folder))]
    return _laid_out([*_with_imports(scripts, folder), *map(Path, job.inspection.files)], [folder])


def source_of_code(uses: str, files: Sequence[Path], folder: Path) -> Source:
    """Return the files that a function, called `module:function`, rests on; `folder` is searched for modules, too."""
    roots = [*_roots(uses.partition(":")[0], files), folder, *(Path(one) for one in sys.path if one)]
    return _laid_out(files, roots)


def lies_in(path: Path, folder: Path) -> bool:
    """Return whether a file is there, and in the folder."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def archived(source: Source, secrets: Iterable[str]) -> tuple[bytes, tuple[str, ...]]:
    """Return the archive, and what is not in it, with the reason. Equal files give equal bytes on every machine."""
    blotter, left_out = Blotter(secrets), list(source.left_out)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:  # what is deflated differs between versions
        for place, file in sorted(source.files.items()):
            if reason := _named_reason(file):
                left_out.append(f"{place}: {reason}")
                continue
            data = file.read_bytes()
            if PRIVATE_KEY in data or _IN_ADDRESS.search(data) or (blotter and blotter.data(data)[0] != data):
                left_out.append(f"{place}: it holds a secret")
                continue
            entry = zipfile.ZipInfo(place, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)
    return content.getvalue(), tuple(left_out)


def _laid_out(files: Iterable[Path], roots: Sequence[Path]) -> Source:
    placed: dict[str, Path] = {}
    left_out = []
    for file in dict.fromkeys(files):
        place = _place(file, roots)
        if not place:
            left_out.append(f"{file.name}: it lies outside the folders of the code and of the declaration")
        elif placed.setdefault(place, file) != file:
            left_out.append(f"{file}: another file takes the place {place}")
    return Source(placed, tuple(left_out))


def _named_reason(file: Path) -> str:
    if any(fnmatch(file.name.lower(), pattern) for pattern in SECRET_NAMES):
        return "by its name, it is a secret"
    try:
        size = file.stat().st_size
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return f"it has {size_text(size)}; give it to the step as an input" if size > MOST_BYTES else ""


def _roots(module: str, files: Iterable[Path]) -> Iterator[Path]:
    """Yield the folder that the module of a step was found in."""
    parts = module.split(".")
    for file in files:
        for tail in ((*parts[:-1], f"{parts[-1]}.py"), (*parts, "__init__.py")):
            if file.parts[-len(tail) :] == tail:
                yield file.parents[len(tail) - 1]


def _place(file: Path, roots: Iterable[Path]) -> str:
    """Return where a file lies below the folder that it is imported from; empty if it lies below none."""
    found = [file.relative_to(root) for root in roots if file.is_relative_to(root) and ".." not in file.parts]
    inside = [root for root in roots if file.resolve().is_relative_to(root.resolve())]
    if not found or not inside:
        return ""
    first = found[0] if file.suffix == ".py" and roots else min(found, key=lambda one: len(one.parts))
    return first.as_posix()


def _with_imports(scripts: Iterable[Path], folder: Path) -> Iterator[Path]:
    """Yield scripts, and the modules that those of Python import from beside them."""
    waiting, seen = list(scripts), set[Path]()
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        yield file
        if file.suffix != ".py":
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for name in _imported(tree):
            for base in dict.fromkeys((file.parent, folder)):
                stem = base.joinpath(*name.split("."))
                parts = (stem.with_suffix(".py"), stem / "__init__.py", stem.parent / "__init__.py")
                waiting += [one for one in parts if one.is_file() and one.is_relative_to(folder)]


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name != "*")
