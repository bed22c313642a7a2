"""What may stand under `inputs:` in a declaration: files, datasets, selections, results of another pipeline.

Each kind may be one dataset, a list, or, with `each`, one instance of the steps per dataset. `match` pairs an input
with another one by fields of their records.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.marks import is_own
from crucible_lineage.pipeline.spec.declared import Check, DeclaredModel, Distance, Folder, Side, TimeMatch
from crucible_lineage.pipeline.spec.ingestion import Ingested, from_name_fault

PACKAGE = "package:"
# Fields of a record that data are compared by, beside `metadata.NAME`.
MATCHED = ("dataset_name", "measurement", "data_type", "session_name", "instrument_name", "instrument_id")
OF_METADATA = "metadata."
FLAGS = "flags"  # in a selection: which flags its datasets have, or have not
NIGHT = "night"  # the day on which the night of the measurement began, from noon to noon
_FIELD = {"else": "otherwise"}  # keys that are words of Python
_IN_TIME = ("nearest", "take", "within", "else", "undated")
_OF_ALL = ("match", "label", "checks", *_IN_TIME)  # keys that stand beside a list of datasets
_WILD = frozenset("*?[")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://[^/]+")


def _require_mfid(value: str) -> str:
    if not is_mfid(value):
        raise ValueError("this is not an MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")
    return value


Mfid = Annotated[str, AfterValidator(_require_mfid)]
Salt = Annotated[str, Field(min_length=1, max_length=200)]


class DatasetFields(DeclaredModel):
    """Fields of a dataset's record that a declaration may set."""

    dataset_name: str | None = None
    measurement: str | None = None
    data_type: str | None = None
    session_name: str | None = None
    instrument_name: str | None = None
    instrument_id: str | None = None
    keywords: tuple[str, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    public: bool = False

    @field_validator("metadata")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if is_own(name):
                raise ValueError(f"{name!r} is kept for what is recorded of the dataset; give it another name")
        return value


class _Paired(TimeMatch):
    """`match: {spectrum: [instrument_name]}`: for each dataset of `spectrum`, the one with the same instrument.

    Of several it is the nearest before, unless `nearest` says another side. `label` is what instances of steps are
    called by for each dataset, as in "{metadata.power_mW} mW".
    """

    match: dict[str, tuple[str, ...]] | None = None
    label: str | None = None
    checks: dict[str, Check] = Field(default_factory=dict)

    @field_validator("match", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            if len(value) != 1:
                raise ValueError("an input is matched with one other input, as in {spectrum: [instrument_name]}")
            return {name: [fields] if isinstance(fields, str) else fields for name, fields in value.items()}
        return value

    @model_validator(mode="after")
    def _matched(self) -> Self:
        said = [name for name in _IN_TIME if getattr(self, _FIELD.get(name, name)) is not None]
        if said and not self.match:
            raise ValueError(f"`{said[0]}` belongs beside `match`, or where a step takes the input")
        return self

    @property
    def partner(self) -> str | None:
        """The input that this one is matched with."""
        return next(iter(self.match)) if self.match else None


class FileInput(_Paired, Ingested, DatasetFields):
    """A measured file (or several) that is registered as a raw dataset if it is new.

    `timestamp` is when it was measured. Where that is not known, `known_since` may name a moment at which the data was
    known to exist: it orders the id, as a timestamp would, and claims nothing in the record. With `each`, every file is
    a dataset of its own. `folder` is what relative paths start from.

    A file may lie elsewhere (gs://bucket/name, also with a pattern): `block` names the Prefect block that gives access,
    and with `copy: false` Crucible holds a record of it, not its bytes.

    `header` names a function that reads fields from a file; they may also be read from the names of the files
    (`from name '(\\d+)mW'`). A file that is not there is a fault, and so is a pattern that fits nothing, unless the
    input is `optional`: then it has no dataset yet. A file that `grows` (a log) replaces, each time that it has grown,
    the dataset of its beginning. A `salt` gives a new dataset another id, where that without it was
    taken by something else.
    """

    file: str | Annotated[tuple[str, ...], Field(min_length=1)]
    header: str | None = None
    each: bool = False
    timestamp: datetime | None = None
    known_since: datetime | None = None
    samples: tuple[Mfid, ...] = ()
    block: str | None = None
    copied: bool = Field(default=True, alias="copy")
    optional: bool = False
    grows: bool = False
    salt: Salt | None = None
    folder: Folder = Path()

    @model_validator(mode="after")
    def _growing(self) -> Self:
        if self.grows and (self.remote or not (self.each or isinstance(self.file, str))):
            raise ValueError("`grows` is for one file on this disk, or for each of several with `each: true`")
        if self.grows and not self.each and self.is_pattern:
            raise ValueError("`grows` is for one file; for a pattern, say `each: true` too")
        return self

    @model_validator(mode="after")
    def _elsewhere(self) -> Self:
        if (self.block or not self.copied) and not self.remote:
            raise ValueError("block and copy are for files elsewhere, at an address such as gs://bucket/name")
        if self.optional and self.remote and not (self.each and self.is_pattern):
            raise ValueError("optional is, of files elsewhere, for a pattern with `each: true`")
        return self

    @field_validator("dataset_name", "measurement", "data_type", "session_name", "instrument_name", "instrument_id")
    @classmethod
    def _from_name(cls, value: str | None) -> str | None:
        if fault := from_name_fault(value):
            raise ValueError(fault)
        return value

    @field_validator("metadata")
    @classmethod
    def _from_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, part in value.items():
            if fault := from_name_fault(part):
                raise ValueError(f"{name}: {fault}")
        return value

    @field_validator("timestamp", "known_since", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) or (isinstance(value, str) and value.strip("+-. ").isdigit()):
            raise ValueError("a moment is written as in 2024-05-01T12:00:00Z; this would be seconds since 1970")
        return value

    @field_validator("timestamp", "known_since")
    @classmethod
    def _with_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("the time zone is missing; write it as in 2024-05-01T12:00:00+02:00, or Z for UTC")
        return value

    @property
    def paths(self) -> list[Path]:
        """The files on disk, as they are now; a pattern (`*`, `?`, `[`) stands for those that match, in order."""
        return [path for path in self._named if path.exists()] if self.optional else self._named

    @property
    def absent(self) -> list[Path]:
        """The files that are named and not there."""
        return [path for path in self._named if not path.exists()]

    @property
    def _named(self) -> list[Path]:
        return [path for name in self._names if not is_remote(name) for path in _matching(name, self.folder)]

    @property
    def remote(self) -> tuple[str, ...]:
        """The addresses of files elsewhere, as they are declared."""
        return tuple(name for name in self._names if is_remote(name))

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.file,) if isinstance(self.file, str) else self.file

    @property
    def is_pattern(self) -> bool:
        """True if one of the names is a pattern."""
        return any(_WILD & set(name) for name in self._names)

    def of_each(self) -> tuple[FileInput, ...]:
        """The datasets: one of all files, or, with `each`, one a file on disk."""
        if not self.each:
            return (self,) if self.paths or not self.optional else ()
        return tuple(self.model_copy(update={"file": str(path), "each": False}) for path in self.paths)


class DatasetInput(_Paired):
    """A dataset that exists, by its MFID, or several."""

    dataset: tuple[Mfid, ...] = Field(min_length=1)
    each: bool = False

    @field_validator("dataset", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class SelectInput(_Paired):
    """All complete datasets of the project that match these filters, oldest first.

    Of results only those that hold now, unless `superseded` asks for the others too. `metadata.NAME` is a filter as
    well: its value, or one of a list. `flags` has names of flags: `none_of` and `any_of`.
    """

    select: dict[str, Any]
    each: bool = False
    superseded: bool = False

    @model_validator(mode="after")
    def _flags_are_named(self) -> SelectInput:
        flags = self.select.get(FLAGS, {})
        lists = flags.values() if isinstance(flags, Mapping) else [None]
        if FLAGS in self.select and not (
            isinstance(flags, Mapping)
            and flags.keys() <= {"none_of", "any_of"}
            and all(isinstance(names, list | tuple) and all(isinstance(one, str) for one in names) for names in lists)
        ):
            raise ValueError(f"{FLAGS}: write lists of names under none_of or any_of, as in {{none_of: [saturated]}}")
        return self

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that Crucible knows."""
        return {
            name: value for name, value in self.select.items() if not name.startswith(OF_METADATA) and name != FLAGS
        }

    def has_flags(self, flags: Collection[str]) -> bool:
        """Return whether a dataset with these flags passes."""
        asked = self.select.get(FLAGS) or {}
        wanted, unwanted = asked.get("any_of"), asked.get("none_of") or ()
        return not set(unwanted) & set(flags) and (wanted is None or bool(set(wanted) & set(flags)))

    def fits(self, metadata: Mapping[str, Any]) -> bool:
        """True if a dataset with these scientific metadata passes the filters that Crucible does not know."""
        asked = {name: value for name, value in self.select.items() if name.startswith(OF_METADATA)}
        return all(_is_among(value_of({"metadata": metadata}, name), value) for name, value in asked.items())


class ResultInput(_Paired):
    """What a step of another pipeline made: its current results, which have to be there."""

    pipeline: str
    step: str
    output: str | None = None
    each: bool = False
    folder: Folder = Path()

    @property
    def path(self) -> Path:
        """The other declaration."""
        return located(self.pipeline, self.folder)


class CalibrationInput(DeclaredModel):
    """For each dataset of another input, the calibration of that kind that is certified for it when it was measured.

    `take` says which: the one that is valid then, as `before`, and the one that becomes valid next, as `after`. Where
    none is valid, `otherwise` says what then: `block`, `nearest` in time, or `none`; nothing is taken from beyond
    `within`.
    """

    calibration: str = Field(min_length=1)
    of: str = Field(alias="for")
    take: Annotated[tuple[Side, ...], Field(min_length=1, max_length=2)] = ("before",)
    within: Distance | None = None
    otherwise: Literal["block", "nearest", "none"] = Field(default="block", alias="else")
    label: str | None = None
    checks: dict[str, Check] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sides_once(self) -> Self:
        if len(set(self.take)) != len(self.take):
            raise ValueError("`take` names each side once, as in [before, after]")
        return self

    @property
    def each(self) -> bool:
        """False: it has no instances of its own."""
        return False

    @property
    def partner(self) -> str:
        """The input whose data are calibrated."""
        return self.of

    @property
    def match(self) -> dict[str, tuple[str, ...]]:
        """The same, without fields: certificates say which data they are about."""
        return {self.of: ()}


class EachInput(_Paired):
    """Datasets declared one by one; what stands beside `each` holds for all of them."""

    each: tuple[
        Annotated[
            Annotated[FileInput, Tag("file")] | Annotated[DatasetInput, Tag("dataset")],
            Discriminator(
                lambda value: _input_kind(value) if _input_kind(value) in ("file", "dataset") else None,
                custom_error_type="input_kind",
                custom_error_message="it needs one of the keys file and dataset",
            ),
        ],
        ...,
    ] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not isinstance(value.get("each"), (list, tuple)):
            return value
        shared = {name: part for name, part in value.items() if name not in ("each", *_OF_ALL)}
        entries = [_over(shared, entry) if isinstance(entry, Mapping) else entry for entry in value["each"]]
        return {"each": entries, **{name: value[name] for name in _OF_ALL if name in value}}

    @model_validator(mode="after")
    def _flat(self) -> Self:
        if any(entry.match for entry in self.each):
            raise ValueError("`match` belongs beside the list, not in it")
        if any(entry.each and not isinstance(entry, FileInput) for entry in self.each):
            raise ValueError("in the list, `each` is for patterns of files: each file that fits is one dataset")
        return self


def value_of(fields: Mapping[str, object], name: str) -> object:
    """The value of `instrument_name` or `metadata.laser_nm`; None if there is none."""
    value: Any = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_among(value: object, wanted: object) -> bool:
    values = wanted if isinstance(wanted, list | tuple) else [wanted]
    return any(value == one or (value is not None and str(value) == str(one)) for one in values)


def _over(shared: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with what is shared; metadata of both."""
    both = {**shared, **entry}
    if isinstance(shared.get("metadata"), Mapping) and isinstance(entry.get("metadata"), Mapping):
        both["metadata"] = {**shared["metadata"], **entry["metadata"]}
    return both


INPUT_KINDS: Mapping[str, type[DeclaredModel]] = {
    "each": EachInput,
    "file": FileInput,
    "dataset": DatasetInput,
    "select": SelectInput,
    "pipeline": ResultInput,
    "calibration": CalibrationInput,
}


def _input_kind(value: object) -> str | None:
    if isinstance(value, DeclaredModel):
        return next(kind for kind, model in INPUT_KINDS.items() if type(value) is model)
    keys = value if isinstance(value, dict) else {}
    if isinstance(keys.get("each"), (list, tuple)):
        return "each"
    return next((kind for kind in INPUT_KINDS if kind in keys and kind != "each"), None)


PipelineInput = Annotated[
    Annotated[EachInput, Tag("each")]
    | Annotated[FileInput, Tag("file")]
    | Annotated[DatasetInput, Tag("dataset")]
    | Annotated[SelectInput, Tag("select")]
    | Annotated[ResultInput, Tag("pipeline")]
    | Annotated[CalibrationInput, Tag("calibration")],
    Discriminator(
        _input_kind,
        custom_error_type="input_kind",
        custom_error_message=(
            "it needs one of the keys file, dataset, select, pipeline, calibration, crux, or each with a list"
        ),
    ),
]


def is_remote(name: str) -> bool:
    """True for an address such as gs://bucket/name, False for the name of a file on disk."""
    return _ADDRESS.match(name) is not None


def located(name: str, folder: Path = Path()) -> Path:
    """The file of that name: `package:NAME/PATH` lies in an installed package, a relative path starts from `folder`."""
    if not name.startswith(PACKAGE):
        return folder / name
    package, _, rest = name.removeprefix(PACKAGE).partition("/")
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise InputError(f"{name}: there is no package {package!r} here")
    return Path(folders[0]) / rest


def _matching(name: str, folder: Path) -> list[Path]:
    """The file of that name, or those that fit the pattern; a file that is called like a pattern is meant itself."""
    path = located(name, folder)
    if path.exists() or not _WILD & set(name):
        return [path]
    if name.startswith(PACKAGE):
        package, _, pattern = name.partition("/")
        folder = located(f"{package}/")
    else:
        pattern = name
    return [folder / found for found in sorted(glob.glob(pattern, root_dir=folder, recursive=True))]  # noqa: PTH207 (absolute patterns too)
