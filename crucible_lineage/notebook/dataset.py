"""Datasets in Python: their fields, files as paths and as values, parents and children."""

from __future__ import annotations

import importlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from html import escape
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from crucible_lineage.ask.answer import rows_table
from crucible_lineage.ask.listing import as_texts
from crucible_lineage.ask.question import MODULES
from crucible_lineage.ask.view import DatasetView, ListedFile, existing, show_dataset
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.machine.csv_files import csv_form, csv_rows
from crucible_lineage.pipeline.plan.corrections import Correction, corrections
from crucible_lineage.pipeline.plan.fetch import place_file
from crucible_lineage.pipeline.plan.files import existing_dataset
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.standing.standings import standings_of
from crucible_lineage.statements.statements import About
from crucible_lineage.statements.stating import lift as lift_statements
from crucible_lineage.statements.stating import put_on_hold, sign
from crucible_lineage.text.amounts import amount

if TYPE_CHECKING:
    from crucible_lineage.notebook.catalogue import Catalogue

__all__ = ["Dataset", "Datasets"]

MOST_LISTED = 20


def _of_view(path: str, text: str) -> Any:
    """Return a property: a value of the dataset as `show` has it; None for an empty text."""
    find = attrgetter(path)
    return property(lambda dataset: None if find(dataset._view) == "" else find(dataset._view), doc=text)


class Dataset:
    """A dataset of a catalogue, read when first needed. Steps called within `registering` accept it as an input."""

    def __init__(self, catalogue: Catalogue, mfid: str) -> None:
        self._catalogue = catalogue
        self.mfid = mfid

    @cached_property
    def _view(self) -> DatasetView:
        return show_dataset(self._catalogue.session, self.mfid)

    name = _of_view("entry.summary.name", "The name of the dataset.")
    state = _of_view("entry.state", "`current`, `superseded`, `incomplete`, `raw` for measured data, or `doubtful`.")
    step = _of_view("entry.summary.step", "The step that made it, as its pipeline names it; None if no step did.")
    pipeline = _of_view("entry.summary.pipeline", "The pipeline that made it; None if none did.")
    measurement = _of_view("entry.summary.measurement", "The technique of the measurement.")
    results = _of_view("results", "The values that its step returned; for measured data, those given as metadata.")
    params = _of_view("made.params", "The parameters of its step.")
    files = _of_view("files", "The files of the dataset.")
    statements = _of_view("statements", "The statements about it, oldest first, including revoked ones.")
    calibrations = _of_view("calibrations", "The calibrations it was made with, or that are certified for it, and why.")

    @property
    def project(self) -> str | None:
        """The project of the dataset."""
        return self._view.facts.get("project_id")

    def hold(self, why: str, *, flag: str = "") -> None:
        """Put the dataset on hold: nothing is made from it or its descendants. With `flag`, only warn."""
        put_on_hold(self._catalogue.session, About((self.mfid,)), why, project=self.project or "", flag=flag)
        self.__dict__.pop("_view", None)

    def lift(self, why: str = "", *, kind: str = "") -> None:
        """Lift what is stated about the dataset, or only one kind. Raises InputError if there is nothing to lift."""
        lift_statements(self._catalogue.session, [self.mfid], why, kind=kind)
        self.__dict__.pop("_view", None)

    def sign(self, why: str = "") -> int:
        """Sign the dataset. A candidate with all its signatures becomes current. Returns the number still needed."""
        missing = sign(self._catalogue.session, (self.mfid,), why).missing[self.mfid]
        self.__dict__.pop("_view", None)
        return missing

    @property
    def metadata(self) -> JsonMapping:
        """All its scientific metadata except those of crucible-lineage itself."""
        return {**self._view.metadata, **self._view.results}

    @property
    def parents(self) -> Datasets:
        """The datasets that it was made from."""
        return Datasets(self._catalogue, self._view.parents)

    @property
    def children(self) -> Datasets:
        """The datasets that were made from it."""
        return Datasets(self._catalogue, self._view.children)

    def path(self, name: str | None = None) -> Path:
        """Return the path of a checked copy of a file, by default of the only one.

        It exists until the catalogue is closed. Raises InputError if there is no such file, or several and no name.
        """
        file = self._file(name)
        return self._catalogue.keep(self.mfid, file.name, lambda target: self._fetch(file, target))

    def load(self, name: str | None = None) -> Any:
        """Load a file as a value, by the ending of its name (`add_loader` adds loaders)."""
        return load_file(self.path(name))

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """The changes since registration, earliest first, each with author, time and reason."""
        found = self._catalogue.client.datasets.get(self.mfid, include_metadata=True)
        return corrections(found.scientific_metadata)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the method of a question about datasets: `why`, `lineage`, `impact`, `verify`, `show`."""
        if name.startswith("_") or name not in MODULES:
            raise AttributeError(f"a dataset has no {name!r}")
        return partial(getattr(self._catalogue, name), self)

    @property
    def ref(self) -> DatasetRef:
        """The reference that steps accept. Raises InputError if the dataset is incomplete."""
        return existing_dataset(self.mfid, self._catalogue.session)

    def _file(self, name: str | None) -> ListedFile:
        by_name: dict[str, ListedFile] = {file.name: file for file in self.files}
        if name is None:
            ref = self._catalogue.session.known(self.mfid)
            others = {known.name for known in ref.files if not known.is_data} if ref else set()  # previews
            data = [file for file in by_name.values() if file.name not in others] or list(by_name.values())
            if len(data) == 1:
                return data[0]
            reason = f"name one of its files: {', '.join(by_name)}" if by_name else "it has no files"
            raise InputError(f"dataset {self.mfid} ({self.name}): {reason}")
        if name not in by_name:
            raise InputError(f"dataset {self.mfid} ({self.name}) has no file {name!r}; {nearest(name, by_name)}")
        return by_name[name]

    def _fetch(self, file: ListedFile, target: Path) -> None:
        session = self._catalogue.session
        if file.sha256:
            ref = FileRef(file.name, file.sha256, file.size or 0)
            place_file(DatasetRef(self.mfid, self.name, (ref,)), ref, target, session)
            return
        (stored,) = [listed for listed in session.client.files.list(self.mfid) if listed.filename == file.name]
        session.client.files.download(stored, target.parent)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and other.mfid == self.mfid

    def __hash__(self) -> int:
        return hash(self.mfid)

    def __repr__(self) -> str:
        return f"<dataset {self.mfid} {self.name!r}, {self.state}>"

    def _repr_html_(self) -> str:
        shown = self._view._repr_html_()
        for thumbnail in self._catalogue.session.client.datasets.get_thumbnails(self.mfid):
            kind = thumbnail.mime_type or "image/png"
            if kind in ("image/png", "image/jpeg", "image/gif", "image/webp"):
                source = f"data:{kind};base64,{escape(thumbnail.thumbnail_b64str or '')}"
                return f'{shown}<img alt="{escape(self.name)}" style="max-width:480px" src="{source}">'
        return shown


class Datasets(list[Dataset]):
    """Datasets, each read when needed. `doubtful` counts those that were omitted."""

    def __init__(self, catalogue: Catalogue, mfids: Iterable[str], doubtful: int = 0) -> None:
        super().__init__(Dataset(catalogue, mfid) for mfid in mfids)
        self._session = catalogue.session
        self._not_listed = f"; not listed: {doubtful} doubtful" if doubtful else ""

    def __repr__(self) -> str:
        return f"<{amount(len(self), 'dataset')}{self._not_listed}>"

    def _repr_html_(self) -> str:
        shown = [existing(self._session, dataset.mfid) for dataset in self[:MOST_LISTED]]
        more = f"and {len(self) - len(shown)} more" if len(self) > len(shown) else ""
        more = (more + self._not_listed).removeprefix("; ")
        return rows_table(*as_texts(standings_of(self._session, shown))) + f"<div>{escape(more)}</div>"


Loader = Callable[[Path], Any]
GROUP = "crucible_lineage.loaders"  # entry points of other packages: the ending without its dot, and a loader


def add_loader(ending: str, loader: Loader) -> None:
    """Register a function that loads files with this ending (as in `.spc`, in any case).

    It gets the path, and its value is that of `Dataset.load`. It replaces an earlier loader.
    """
    if not ending.startswith(".") or len(ending) < 2:
        raise InputError(f"add a loader for {ending!r}: name an ending with its dot, as in '.spc'")
    _LOADERS[ending.lower()] = loader


def load_file(path: Path) -> Any:
    """Load a file: a DataFrame (`.csv`, `.tsv`, `.parquet`, `.xlsx`; without pandas a list of dicts for the
    first two), what JSON holds, an array (`.npy`, `.npz`), an open h5py.File (`.h5`, `.hdf5`, `.nxs`), a picture
    (`.png`, `.jpg`, `.tif`), a text (`.txt`, `.md`, `.log`), or the value of a registered loader.

    In CSV, lines above the first row that begin with `#` are comments, and semicolons or tabs may separate cells, with
    commas in decimal numbers. A first row with only numbers is data; its columns are `column_1` and so on.

    Raises InputError if no loader knows the ending, its library is missing, or the file does not match its ending.
    """
    endings = ["".join(path.suffixes[at:]).lower() for at in range(len(path.suffixes))]  # `.tar.gz` before `.gz`
    for ending in endings:
        installed = (entry.load() for entry in entry_points(group=GROUP, name=ending.removeprefix(".")))
        if loader := _LOADERS.get(ending) or next(installed, None):
            return _load(loader, path, ending)
    raise InputError(
        f"load {path.name}: no loader knows {endings[-1] if endings else 'a name without an ending'}; register one "
        "with crucible_lineage.add_loader, or read the file at Dataset.path()"
    )


def _load(loader: Loader, path: Path, ending: str) -> Any:
    try:
        return loader(path)
    except ImportError as error:
        missing = error.name or str(error)
        raise InputError(f"load {path.name}: {ending} needs the library {missing}; pip install {missing}") from error
    except (ValueError, OSError, EOFError, BadZipFile) as error:  # raised by libraries for files of another kind
        raise InputError(
            f"load {path.name}: it cannot be read as {ending}: {str(error).strip()}; read the file at Dataset.path(), "
            "or register a loader with crucible_lineage.add_loader"
        ) from error


def _csv(path: Path) -> Any:
    form = csv_form(path)
    try:
        import pandas
    except ImportError:
        names = _distinct(form.columns)
        return [dict(zip(names, map(form.with_point, cells), strict=True)) for _, cells in csv_rows(path, form)]
    made_up = None if form.has_header else form.columns
    with warnings.catch_warnings():  # else pandas drops cells, or takes the first column for an index
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            return pandas.read_csv(
                path, sep=form.separator, decimal=form.decimal, header="infer" if form.has_header else None,
                names=made_up, index_col=False, skiprows=form.lines_above,
            )  # fmt: skip
        except pandas.errors.ParserWarning as warning:
            raise ValueError("there are more cells than columns") from warning


def _distinct(columns: Sequence[str]) -> list[str]:
    """Return the names as pandas makes them distinct: `x`, `x.1`."""
    seen: Counter[str] = Counter()
    names = []
    for name in columns:
        names.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def _by(library: str, function: str, *arguments: object, **options: object) -> Loader:
    """Return a loader that calls a function of a library, which is imported on use."""
    return lambda path: getattr(importlib.import_module(library), function)(path, *arguments, **options)


def _picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        return picture


_LOADERS: dict[str, Loader] = {
    **dict.fromkeys((".csv", ".tsv"), _csv),
    **dict.fromkeys((".h5", ".hdf5", ".nxs"), _by("h5py", "File", "r")),
    **dict.fromkeys((".npy", ".npz"), _by("numpy", "load", allow_pickle=False)),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp"), _picture),
    **dict.fromkeys((".txt", ".md", ".log"), lambda path: path.read_text(encoding="utf-8")),
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".parquet": _by("pandas", "read_parquet"),
    ".xlsx": _by("pandas", "read_excel"),
}
