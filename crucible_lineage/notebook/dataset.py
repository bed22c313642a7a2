"""A dataset as one holds it in Python: what it says, its files as paths and as values, and its kin."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, overload
from zipfile import BadZipFile

from crucible_lineage.core.statement_effects import AppliedStatement
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.notebook.html import block, line, pairs, rows_table, state_mark, strong
from crucible_lineage.pipeline.files.fetch import place_file
from crucible_lineage.pipeline.inputs.corrections import Correction, corrections
from crucible_lineage.pipeline.inputs.existing import existing_dataset
from crucible_lineage.queries.catalogue.columns import as_texts
from crucible_lineage.queries.catalogue.view import DatasetView, existing, show_dataset
from crucible_lineage.queries.graph.state import entries_now
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.statements import FLAG, HOLD, About
from crucible_lineage.stating import lift, state

if TYPE_CHECKING:
    from crucible_lineage.notebook.catalogue import Catalogue
    from crucible_lineage.notebook.views import Lineage
    from crucible_lineage.queries.calibrations import CalibrationsFor
    from crucible_lineage.queries.explain import Explanation

__all__ = ["Dataset", "Datasets", "File"]

MOST_LISTED = 20


@dataclass(frozen=True)
class File:
    """A file of a dataset: its name, its size in bytes, and its SHA-256 (64 hexadecimal digits)."""

    name: str
    size: int | None
    sha256: str | None


class Dataset:
    """A dataset of a catalogue. What it says is asked for when it is first needed, and then stays as it was.

    Steps called within `registering` take it as an input.
    """

    def __init__(self, catalogue: Catalogue, mfid: str) -> None:
        self._catalogue = catalogue
        self.mfid = mfid

    @cached_property
    def _shown(self) -> DatasetView:
        return show_dataset(self._catalogue.session, self.mfid)

    @property
    def name(self) -> str:
        """Return its name."""
        return self._shown.entry.summary.name

    @property
    def state(self) -> str:
        """Whether it holds: `current`, `superseded`, `incomplete`, `raw` for measured data, or `doubtful`."""
        return self._shown.entry.state

    @property
    def doubt(self) -> str:
        """Say why the dataset is doubtful: what is on hold, by whom, since when and why; empty if it is not."""
        doubt = self._shown.entry.doubt
        return doubt.message(self.mfid) if doubt else ""

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of its flags."""
        return self._shown.entry.flags

    @property
    def statements(self) -> tuple[AppliedStatement, ...]:
        """List the statements about the dataset, oldest first, including revoked ones."""
        return self._shown.statements

    @property
    def remade(self) -> int:
        """Count how often the dataset was reproduced identically elsewhere."""
        return self._shown.entry.remade.times

    def hold(self, why: str, *, flag: str = "") -> None:
        """Put it on hold: nothing is made of it any more, nor of what was made of it. With `flag`, only warn."""
        about, body = About((self.mfid,)), {"flag": flag} if flag else {}
        state(self._catalogue.session, self.project or "", FLAG if flag else HOLD, about, why=why, body=body)
        self.__dict__.pop("_shown", None)

    def unhold(self, why: str = "", *, flag: str = "") -> None:
        """Lift all holds on it, or take the flag away. Raises InputError if there is none."""
        lift(self._catalogue.session, About((self.mfid,)), why, project=self.project or "", flag=flag)
        self.__dict__.pop("_shown", None)

    def sign(self, why: str = "") -> int:
        """Sign it; a candidate with all its signatures is current. Returns how many more it needs."""
        from crucible_lineage.stating import sign  # few notebooks sign

        lacking = sign(self._catalogue.session, (self.mfid,), why).missing[self.mfid]
        self.__dict__.pop("_shown", None)
        return lacking

    def calibrations(self, kind: str = "", *, as_of: str = "") -> CalibrationsFor:
        """Return which calibrations are certified for measured data, why, what else there is, and what used which."""
        from crucible_lineage.queries.calibrations import calibrations_for  # few notebooks ask

        return calibrations_for(self._catalogue.session, self.mfid, kind, as_of)

    @property
    def step(self) -> str | None:
        """The step that made it, as its pipeline calls it; None if none did."""
        return self._shown.entry.summary.step or None

    @property
    def pipeline(self) -> str | None:
        """The pipeline that made it; None if none did."""
        return self._shown.entry.summary.pipeline or None

    @property
    def measurement(self) -> str | None:
        """The technique."""
        return self._shown.entry.summary.measurement or None

    @property
    def project(self) -> str | None:
        """The project that it belongs to."""
        return self._shown.facts.get("project_id")

    @property
    def results(self) -> Mapping[str, Any]:
        """Return what its step returned; of measured data, the metadata that were given with them."""
        return self._shown.results

    @property
    def metadata(self) -> Mapping[str, Any]:
        """All its scientific metadata but what crucible-lineage itself keeps there."""
        return {**self._shown.metadata, **self._shown.results}

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters that it was made with."""
        return self._shown.made.params

    @property
    def files(self) -> tuple[File, ...]:
        """Its files."""
        return tuple(File(file["name"], file["size"], file["sha256"]) for file in self._shown.files)

    @property
    def parents(self) -> Datasets:
        """The datasets that it was made of."""
        return Datasets(self._catalogue, self._shown.parents)

    @property
    def children(self) -> Datasets:
        """The datasets that were made of it."""
        return Datasets(self._catalogue, self._shown.children)

    def path(self, name: str | None = None) -> Path:
        """A copy of the file of that name, its bytes checked; of the only file, if no name is given.

        It is there until the catalogue is closed. InputError if there is no such file, or several and no name.
        """
        file = self._file(name)
        return self._catalogue.keep(self.mfid, file.name, lambda target: self._place(file, target))

    def open(self, name: str | None = None) -> IO[bytes]:
        """The file, open for reading bytes; as `path`."""
        return self.path(name).open("rb")

    def load(self, name: str | None = None) -> Any:
        """Load a file as a value to work with, by the ending of its name (`add_loader` adds to them)."""
        return load_file(self.path(name))

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """List the changes since registration, earliest first, each with who, when and why."""
        found = self._catalogue.client.datasets.get(self.mfid, include_metadata=True)
        return corrections(found.scientific_metadata)

    def lineage(self) -> Lineage:
        """Where it comes from and what was made of it."""
        return self._catalogue.lineage(self.mfid)

    def why(self) -> Explanation:
        """Explain how it came to be."""
        return self._catalogue.why(self.mfid)

    @property
    def ref(self) -> DatasetRef:
        """Return the reference that steps take. InputError if it is incomplete."""
        return existing_dataset(self.mfid, self._catalogue.session)

    def _file(self, name: str | None) -> File:
        there = {file.name: file for file in self.files}
        if name is None:
            data = [file for file in self.files if not self._is_preview(file)] or list(self.files)
            if len(data) == 1:
                return data[0]
            said = f"name one of its files: {', '.join(there)}" if there else "it has no files"
            raise InputError(f"dataset {self.mfid} ({self.name}): {said}")
        if name not in there:
            raise InputError(f"dataset {self.mfid} ({self.name}) has no file {name!r}; {nearest(name, there)}")
        return there[name]

    def _is_preview(self, file: File) -> bool:
        known = self._catalogue.session.known(self.mfid)
        return known is not None and any(one.name == file.name and not one.is_data for one in known.files)

    def _place(self, file: File, target: Path) -> None:
        session = self._catalogue.session
        if file.sha256:
            wanted = FileRef(file.name, file.sha256, file.size or 0)
            place_file(DatasetRef(self.mfid, self.name, (wanted,)), wanted, target, session)
            return
        (stored,) = [one for one in session.client.files.list(self.mfid) if one.filename == file.name]
        session.client.files.download(stored, target.parent)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and other.mfid == self.mfid

    def __hash__(self) -> int:
        return hash(self.mfid)

    def __repr__(self) -> str:
        return f"<dataset {self.mfid} {self.name!r}, {self.state}>"

    def _repr_html_(self) -> str:
        one = self._shown.entry.summary
        made = "/".join(filter(None, (one.pipeline, one.step))) or one.measurement
        files = [(file.name, file.size) for file in self.files]
        return block(
            line(strong(self.name), state_mark(self.state)),
            line(f"<code>{escape(self.mfid)}</code>", escape(made), escape(" ".join(f"[{one}]" for one in self.flags))),
            *(line(escape(told)) for told in self._shown.remarks),
            self._picture(),
            pairs("parameters", self.params),
            pairs("results" if self.step else "metadata", self.results),
            rows_table(("file", "bytes"), files) if files else "",
        )

    def _picture(self) -> str:
        for thumbnail in self._catalogue.session.client.datasets.get_thumbnails(self.mfid):
            kind = thumbnail.mime_type or "image/png"
            if kind in ("image/png", "image/jpeg", "image/gif", "image/webp"):
                content = escape(thumbnail.thumbnail_b64str or "")
                return f'<img alt="{escape(self.name)}" style="max-width:480px" src="data:{kind};base64,{content}">'
        return ""


class Datasets(Sequence[Dataset]):
    """Datasets in an order, each asked for when it is needed. Of what was asked for, `doubtful` were left out."""

    def __init__(self, catalogue: Catalogue, mfids: Sequence[str], doubtful: int = 0) -> None:
        self._catalogue = catalogue
        self.doubtful = doubtful
        self.mfids = tuple(mfids)

    @overload
    def __getitem__(self, at: int) -> Dataset: ...
    @overload
    def __getitem__(self, at: slice) -> Datasets: ...
    def __getitem__(self, at: int | slice) -> Dataset | Datasets:
        if isinstance(at, slice):
            return Datasets(self._catalogue, self.mfids[at])
        return Dataset(self._catalogue, self.mfids[at])

    def __iter__(self) -> Iterator[Dataset]:
        return (Dataset(self._catalogue, mfid) for mfid in self.mfids)

    def __len__(self) -> int:
        return len(self.mfids)

    def __repr__(self) -> str:
        left = f"; {self.doubtful} doubtful left out" if self.doubtful else ""
        return f"<{len(self)} {'dataset' if len(self) == 1 else 'datasets'}{left}>"

    def _repr_html_(self) -> str:
        session = self._catalogue.session
        names, rows = as_texts(entries_now(session, [existing(session, mfid) for mfid in self.mfids[:MOST_LISTED]]))
        more = f"and {len(self) - len(rows)} more" if len(self) > len(rows) else ""
        more += f" {self.doubtful} doubtful left out" if self.doubtful else ""
        return block(
            rows_table(names, rows, marks=[at for at, name in enumerate(names) if name == "State"]), line(escape(more))
        )


Loader = Callable[[Path], Any]
GROUP = "crucible_lineage.loaders"  # entry points of packages that bring loaders, called by the ending without its dot


def add_loader(ending: str, loader: Loader) -> None:
    """From now on files whose names end so (as `.spc`, whatever the letters' case) are loaded by this function.

    It is given the path, and returns what `Dataset.load` gives. It takes the place of an earlier one.
    """
    if not ending.startswith(".") or len(ending) < 2:
        raise InputError(f"add a loader for {ending!r}: name an ending with its dot, as in '.spc'")
    _LOADERS[ending.lower()] = loader


def load_file(path: Path) -> Any:
    """Load a file: a DataFrame (`.csv`, `.tsv`, `.parquet`, `.xlsx`; without pandas a list of dicts for the
    first two), what JSON holds, an array (`.npy`, `.npz`), an open h5py.File (`.h5`, `.hdf5`, `.nxs`), a picture
    (`.png`, `.jpg`, `.tif`), a text (`.txt`, `.md`, `.log`), or what a registered loader gives.

    A first row of numbers only names no columns: it is data, and they are called `column_1` and so on. Semicolons
    separate where the first row has them and no comma but decimal ones.

    InputError if no loader knows the ending, its library is missing, or the file is not what its ending says.
    """
    endings = ["".join(path.suffixes[at:]).lower() for at in range(len(path.suffixes))]  # `.tar.gz` before `.gz`
    for ending in endings:
        if loader := _LOADERS.get(ending) or _installed(ending):
            return _loaded(loader, path, ending)
    raise InputError(
        f"load {path.name}: no loader knows {endings[-1] if endings else 'a name without an ending'}; register one "
        "with crucible_lineage.add_loader, or read the file at Dataset.path()"
    )


def _loaded(loader: Loader, path: Path, ending: str) -> Any:
    try:
        return loader(path)
    except ImportError as error:
        missing = error.name or str(error)
        raise InputError(f"load {path.name}: {ending} needs the library {missing}; pip install {missing}") from error
    except (
        ValueError,
        OSError,
        EOFError,
        BadZipFile,
    ) as error:  # what libraries raise of files that are not of their kind
        raise InputError(
            f"load {path.name}: it cannot be read as {ending}: {error}; read the file at Dataset.path(), or register "
            "a loader with crucible_lineage.add_loader"
        ) from error


def _installed(ending: str) -> Loader | None:
    for entry in entry_points(group=GROUP, name=ending.removeprefix(".")):
        loader: Loader = entry.load()
        return loader
    return None


def _csv(path: Path) -> Any:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        has_commas = any("," in line for line in (first, *stream))
    parts = first.strip().split(";")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    if separator == "," and len(parts) > 1 and ("," not in first or _are_numbers(parts, ",")):
        separator = ";"
    decimal = "," if separator == ";" and has_commas else "."
    cells = next(csv.reader([first], delimiter=separator), [])
    names = [f"column_{at}" for at in range(1, len(cells) + 1)] if _are_numbers(cells, decimal) else None
    try:
        import pandas
    except ImportError:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, fieldnames=names, delimiter=separator))
    return pandas.read_csv(path, sep=separator, decimal=decimal, header=None if names else "infer", names=names)


def _are_numbers(cells: list[str], decimal: str) -> bool:
    try:
        return bool([float(cell.replace(decimal, ".")) for cell in cells])
    except ValueError:
        return False


def _parquet(path: Path) -> Any:
    import pandas

    return pandas.read_parquet(path)


def _excel(path: Path) -> Any:
    import pandas

    return pandas.read_excel(path)


def _numpy(path: Path) -> Any:
    import numpy

    return numpy.load(path, allow_pickle=False)


def _hdf5(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r")


def _picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        return picture


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


_LOADERS: dict[str, Loader] = {
    **dict.fromkeys((".csv", ".tsv"), _csv),
    **dict.fromkeys((".h5", ".hdf5", ".nxs"), _hdf5),
    **dict.fromkeys((".npy", ".npz"), _numpy),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp"), _picture),
    **dict.fromkeys((".txt", ".md", ".log"), _text),
    ".json": _json,
    ".parquet": _parquet,
    ".xlsx": _excel,
}
