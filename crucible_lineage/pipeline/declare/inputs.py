"""The kinds of `inputs:` in a declaration: files, datasets, selections, results of another pipeline.

Each kind may be one dataset, a list, or, with `each`, one instance of the steps per dataset. `match` pairs an input
with another one by fields of their records.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WrapValidator,
    field_validator,
    model_validator,
)

from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import value_of
from crucible_lineage.marks import is_entry, is_own
from crucible_lineage.pipeline.declare.parts import (
    EARLIEST,
    EITHER,
    DeclaredModel,
    Digest,
    Fields,
    Folder,
    Ingested,
    OneOrMore,
    TimeMatch,
    from_name_fault,
)
from crucible_lineage.refs import DESCRIPTIVE, MATCHED
from crucible_lineage.text.amounts import is_equal

PACKAGE = "package:"
FLAGS = "flags"  # in a selection: flags that datasets must or must not have
FILTERS = {  # of selections, that Crucible applies
    *("accessible_to_project", "accessible_to_user", "affiliation", "anchor_mfid", "creation_time_gte"),
    *("creation_time_lte", "data_format_is_null", "instrument_mfid", "instrument_mfid_is_null", "keyword", "keywords"),
    *("measurement_is_null", "modification_time_gte", "modification_time_lte", "owner_id", "owner_id_is_null"),
    *("owner_orcid", "project_mfid", "project_mfid_is_null", "project_scope", "public", "sample_id", "sample_mfid"),
    *("session_name_is_null", "size", "timestamp", "unique_id", "visibility"),
}
NIGHT = "night"  # the day on which the night of the measurement began, from noon to noon
_FIELD_NAMES = {"else": "otherwise"}  # keys that are Python keywords
_IN_TIME = ("nearest", "within", "else")
_LIST_KEYS = ("match", *_IN_TIME)  # keys that apply to a whole list of datasets
_WILD = frozenset("*?[")
_GENERATION = re.compile(r"#([0-9]+)$")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://[^/]+")


def _require_mfid(value: str) -> str:
    if not is_mfid(value):
        raise ValueError("this is not an MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")
    return value


Mfid = Annotated[str, AfterValidator(_require_mfid)]
Salt = Annotated[str, Field(min_length=1, max_length=200)]


class DatasetFields(DeclaredModel):
    """Fields of a dataset's record that a declaration may set."""

    dataset_name: str | None = Field(
        default=None, description="of a result, a template: {ROLE.dataset_name}, {params.NAME}"
    )
    measurement: str | None = Field(default=None, description="what was measured, as Crucible names it")
    data_type: str | None = Field(default=None, description="the kind of data, for people")
    session_name: str | None = Field(default=None, description="the session in which it was measured")
    instrument_name: str | None = Field(default=None, description="the instrument, by its name")
    instrument_id: str | None = Field(default=None, description="the instrument, by its identifier at Crucible")
    owner_orcid: str | None = Field(default=None, description="the owner; by default the account that registers")
    keywords: tuple[str, ...] = Field(default=(), description="keywords of the dataset")
    metadata: JsonObject = Field(default={}, description="scientific metadata of the dataset")
    public: bool = Field(default=False, description="true: everybody with a key may read it")

    @field_validator("metadata")
    @classmethod
    def _not_ours(cls, value: JsonObject) -> JsonObject:
        for name in value:
            if is_own(name):
                raise ValueError(f"{name!r} is reserved for the provenance record; choose another name")
        return value

    @property
    def access(self) -> dict[str, object]:
        """Who owns and who may read the dataset."""
        return {"public": self.public, **({"owner_orcid": self.owner_orcid} if self.owner_orcid else {})}

    @property
    def descriptive(self) -> dict[str, object]:
        """The descriptive fields that are set."""
        return {name: value for name in DESCRIPTIVE if (value := getattr(self, name)) is not None}


class Since(datetime):
    """A moment at which data existed whose time of measurement is unknown: it orders ids, and is not recorded."""


def _moment(value: object, validate: Callable[[object], datetime]) -> datetime:
    """Return a moment with its time zone, as in `2024-05-01T12:00:00Z` or `since 2024-05-01T12:00:00Z`."""
    text = value.removeprefix("since ") if isinstance(value, str) else value
    if isinstance(text, (int, float)) or (isinstance(text, str) and text.strip("+-. ").isdigit()):
        raise ValueError("a moment is written as in 2024-05-01T12:00:00Z; this would be seconds since 1970")
    moment = validate(text)
    if moment.tzinfo is None:
        raise ValueError("the time zone is missing; write it as in 2024-05-01T12:00:00+02:00, or Z for UTC")
    return moment if text == value else Since.fromisoformat(moment.isoformat())


Moment = Annotated[datetime, WrapValidator(_moment, json_schema_input_type=datetime | str)]


class PairedInput(TimeMatch):
    """`match: {spectrum: [instrument_name]}`: for each dataset of `spectrum`, the one with the same instrument.

    Of several, the nearest before is used unless `nearest` names another side.
    """

    match: Annotated[dict[str, Fields], Field(min_length=1, max_length=1)] | None = Field(
        default=None,
        description="pairs this input with another: its name, and the fields that must be equal in both records",
    )

    @model_validator(mode="after")
    def _matched(self) -> Self:
        keys = [name for name in _IN_TIME if getattr(self, _FIELD_NAMES.get(name, name)) is not None]
        if keys and not self.match:
            raise ValueError(f"`{keys[0]}` belongs beside `match`, or where a step takes the input")
        return self

    @property
    def partner(self) -> str | None:
        """The input that this one is matched with."""
        return next(iter(self.match)) if self.match else None


class FileInput(PairedInput, Ingested, DatasetFields):
    """One or more measured files, registered as a raw dataset if they are new.

    Relative paths start from `folder`. Fields may be read from the names of the files (`from name '(\\d+)mW'`).
    """

    file: Fields = Field(description="a name, a pattern (*, ?, [...], **), an address (gs://bucket/name), or a list")
    header: str | None = Field(default=None, description="a function that reads fields of a file, or `ingested`")
    each: bool = Field(default=False, description="true: every file is a dataset; steps run for each")
    timestamp: Moment | None = Field(
        default=None,
        description="when it was measured, with the time zone; if unknown, `since` and a moment at which the data "
        "existed; orders ids",
    )
    samples: tuple[Mfid, ...] = Field(default=(), description="MFIDs of the measured samples; results inherit them")
    block: str | None = Field(default=None, description="the Prefect block that gives access to remote files")
    optional: bool = Field(default=False, description="true: the file may not exist yet; without it, that is a fault")
    grows: bool = Field(default=False, description="true: a log; grown, its dataset replaces the last one")
    salt: Salt | None = Field(default=None, description="any text: gives new data another id")
    folder: Folder = Path()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.grows and (self.remote or not (self.each or len(self.file) == 1)):
            raise ValueError("`grows` is for one local file, or for each of several with `each: true`")
        if self.grows and not self.each and self.is_pattern:
            raise ValueError("`grows` is for one file; for a pattern, add `each: true`")
        if self.block and not self.remote:
            raise ValueError("block is for remote files, at an address such as gs://bucket/name")
        if self.optional and self.remote and not (self.each and self.is_pattern):
            raise ValueError("for remote files, optional needs a pattern and `each: true`")
        return self

    @field_validator("dataset_name", *DESCRIPTIVE, "metadata")
    @classmethod
    def _from_names(cls, value: str | JsonObject | None) -> str | JsonObject | None:
        for name, part in value.items() if isinstance(value, dict) else [("", value)]:
            if fault := from_name_fault(part):
                raise ValueError(f"{name}: {fault}" if name else fault)
        return value

    @property
    def measured(self) -> datetime | None:
        """When it was measured, if that is known."""
        return None if isinstance(self.timestamp, Since) else self.timestamp

    @property
    def paths(self) -> list[Path]:
        """The files on disk now; a pattern (`*`, `?`, `[`) is replaced by its matches, sorted."""
        named = [path for name in self.file if not is_remote(name) for path in _matching(name, self.folder)]
        return [path for path in named if path.exists()] if self.optional else named

    @property
    def remote(self) -> tuple[str, ...]:
        """The addresses of remote files, as declared."""
        return tuple(name for name in self.file if is_remote(name))

    @property
    def is_pattern(self) -> bool:
        """Whether one of the names is a pattern."""
        return any(_WILD & set(name) for name in self.file)


_EACH = "true: one instance of the steps for each dataset, instead of one with all"


class DatasetInput(PairedInput):
    """One or more existing datasets, by MFID."""

    dataset: Annotated[tuple[Mfid, ...], OneOrMore, Field(min_length=1)] = Field(description="an MFID, or a list")
    each: bool = Field(default=False, description=_EACH)


class SelectInput(PairedInput):
    """All complete datasets of the project that match these filters, oldest first.

    `metadata.NAME` is a filter too: a value, or a list of alternatives. `flags` lists names of flags under `none_of`
    and `any_of`.
    """

    select: JsonObject = Field(description="filters that datasets of the project must match")
    each: bool = Field(default=False, description=_EACH)
    only: Digest = ""  # the one dataset that a request names

    @model_validator(mode="after")
    def _flags_are_named(self) -> SelectInput:
        if "project_id" in self.select:
            raise ValueError("project_id: a selection is of the pipeline's project; name others by `dataset: MFID`")
        flags = self.select.get(FLAGS, {})
        lists = flags.values() if isinstance(flags, Mapping) else [None]
        if FLAGS in self.select and not (
            isinstance(flags, Mapping)
            and flags.keys() <= {"none_of", "any_of"}
            and all(isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) for names in lists)
        ):
            raise ValueError(f"{FLAGS}: write lists of names under none_of or any_of, as in {{none_of: [saturated]}}")
        return self

    @property
    def filters(self) -> JsonObject:
        """The filters that Crucible applies: those by anything but fields and flags."""
        others = (*MATCHED, FLAGS)
        return {name: value for name, value in self.select.items() if name not in others and not is_entry(name)}

    def fits(self, fields: JsonMapping, *, plain: bool = False) -> bool:
        """Return whether a dataset's fields pass the filters; with `plain`, only those by the given fields."""
        for name, accepted in self.select.items():
            if name in fields if plain else name in MATCHED or is_entry(name):
                value, values = value_of(fields, name), accepted if isinstance(accepted, list | tuple) else [accepted]
                if not (value in values if value is None else any(is_equal(value, item) for item in values)):
                    return False
        return True

    def fits_flags(self, flags: Collection[str]) -> bool:
        """Return whether a dataset with these flags in force passes."""
        listed = self.select.get(FLAGS) or {}
        any_of, none_of = listed.get("any_of"), listed.get("none_of") or ()
        return {*flags}.isdisjoint(none_of) and (any_of is None or not {*flags}.isdisjoint(any_of))


class ResultInput(PairedInput):
    """The current results of a step of another pipeline, which must exist."""

    pipeline: str = Field(description="the file of the pipeline whose results are taken")
    step: str = Field(alias="from", description="the step that made them")
    output: str | None = Field(default=None, description="which of its outputs, if it has several")
    each: bool = Field(default=False, description=_EACH)
    folder: Folder = Path()

    @property
    def path(self) -> Path:
        """The other declaration."""
        return located(self.pipeline, self.folder)


class CalibrationInput(TimeMatch):
    """For each dataset of another input, the calibration of a kind that was certified for its time of measurement.

    `before` is the one that is valid then, `after` the one that is valid next.
    """

    each: ClassVar[bool] = False  # it has no instances of its own
    calibration: str = Field(min_length=1, description="the kind of calibration, as certificates have it")
    of: str = Field(alias="for", description="the input (with `each`) whose data are calibrated")

    @model_validator(mode="after")
    def _has_limits(self) -> Self:
        if EITHER in self.sides or self.otherwise == EARLIEST:
            raise ValueError("a calibration is valid `before` (then) or `after` (next), `else` nearest or none")
        return self

    @property
    def partner(self) -> str:
        """The input whose data are calibrated."""
        return self.of

    @property
    def match(self) -> dict[str, tuple[str, ...]]:
        """The partner without fields: certificates state the data that they apply to."""
        return {self.of: ()}


class EachInput(PairedInput):
    """Datasets of files declared one by one; keys beside `each` apply to all of them."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    each: tuple[FileInput, ...] = Field(min_length=1, description="the files of the datasets, each as an input")

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, value: JsonMapping) -> JsonObject:
        shared = {name: part for name, part in value.items() if name not in ("each", *_LIST_KEYS)}
        entries = [_with_shared(shared, entry) if isinstance(entry, Mapping) else entry for entry in value["each"]]
        return {"each": entries, **{name: value[name] for name in _LIST_KEYS if name in value}}

    @model_validator(mode="after")
    def _flat(self) -> Self:
        if any(entry.match for entry in self.each):
            raise ValueError("`match` belongs beside the list, not in it")
        return self


def _with_shared(shared: JsonMapping, entry: JsonMapping) -> JsonObject:
    """Return an entry with the shared fields added and the metadata of both merged."""
    merged = {**shared, **entry}
    if isinstance(shared.get("metadata"), Mapping) and isinstance(entry.get("metadata"), Mapping):
        merged["metadata"] = {**shared["metadata"], **entry["metadata"]}
    return merged


INPUT_KINDS: Mapping[str, type[DeclaredModel]] = {
    "each": EachInput,
    "file": FileInput,
    "dataset": DatasetInput,
    "select": SelectInput,
    "pipeline": ResultInput,
    "calibration": CalibrationInput,
}


def _input_kind(value: object) -> str | None:
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
            "it needs one of the keys file, dataset, select, pipeline, calibration, or each with a list"
        ),
    ),
]


def is_remote(name: str) -> bool:
    """Return whether a name is an address such as gs://bucket/name and not a local file."""
    return _ADDRESS.match(name) is not None


def split_address(address: str) -> tuple[str, str | None]:
    """Return the address without a generation, as in gs://bucket/name#123, and the generation."""
    pinned = _GENERATION.search(address)
    return (address[: pinned.start()], pinned[1]) if pinned else (address, None)


def located(name: str, folder: Path = Path()) -> Path:
    """Resolve a file name: `package:NAME/PATH` in an installed package, a relative path from `folder`."""
    if not name.startswith(PACKAGE):
        return folder / name
    package, _, rest = name.removeprefix(PACKAGE).partition("/")
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise InputError(f"{name}: the package {package} is not installed")
    return Path(folders[0]) / rest


def _matching(name: str, folder: Path) -> list[Path]:
    """Return the files that match a name or pattern; an existing file is never read as a pattern."""
    path = located(name, folder)
    if path.exists() or not _WILD & set(name):
        return [path]
    if name.startswith(PACKAGE):
        package, _, pattern = name.partition("/")
        folder = located(f"{package}/")
    else:
        pattern = name
    return [folder / match for match in sorted(glob.glob(pattern, root_dir=folder, recursive=True))]  # noqa: PTH207 (absolute patterns too)
