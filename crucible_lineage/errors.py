"""All errors of crucible-lineage, in one tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copyreg import __newobj__  # type: ignore[attr-defined]
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from crucible_lineage.text.masking import masked_text

MOST_NEAR = 3  # possible words that a message about an unknown one suggests
NEXT_BEST = 0.03  # below the best likeness, of 1, that is still a suggestion
MOST_LISTED = 12  # possible words that it lists where none is near


# Exit codes of commands; docs/site/tables_page.py says what they mean.
FAILURE, BAD_INPUT, UNREACHABLE, ON_HOLD, INTERRUPTED = 1, 2, 3, 4, 130  # the last as shells use it for Ctrl-C


class LineageError(Exception):
    """Base of every error that crucible-lineage raises on purpose, without secrets. Pickling keeps its fields."""

    exit_code: ClassVar = FAILURE

    def __init__(self, message: str = "", **fields: Any) -> None:
        self.__dict__.update(fields)
        super().__init__(masked_text(message))

    def __reduce__(self) -> tuple[Any, ...]:
        return __newobj__, (type(self), *self.args), self.__dict__


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a declaration: where it is and what to do about it.

    `location` is its path within the declaration (`("params", "degree")` of a step), until file and line are known.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    location: tuple[str | int, ...] = field(default=(), compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the fault as JSON."""
        return {"message": masked_text(self.message), "file": self.file, "line": self.line, "column": self.column}

    def __str__(self) -> str:
        position = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return masked_text(f"{position}: {self.message}" if position else self.message)


@contextmanager
def refused_as_input() -> Iterator[None]:
    """Raise as InputError what Crucible refuses because the request is wrong. For one call before any change."""
    try:
        yield
    except (ConflictError, NotFoundError, RefusedError) as error:
        raise InputError(str(error)) from error


def shown_path(path: str | PathLike[str]) -> str:
    """Return a path relative to the working directory if it lies below it, else unchanged."""
    with suppress(OSError, ValueError):
        return str(Path(path).resolve().relative_to(Path.cwd()))
    return str(path)


def no_file(path: Path) -> InputError:
    """Return the error for a path that is not a file: it is a folder, or does not exist."""
    if path.is_dir():
        return InputError(f"{path} is a folder; name its files, as in {path}/*")
    return InputError(f"there is no file {path}")


def nearest(word: str, possible: Iterable[str], otherwise: str = "there are", most: int = MOST_LISTED) -> str:
    """Return the end of a message about an unknown word: `did you mean 'x' or 'y'?`, else the possible words."""
    import difflib  # only a mistake pays for it

    words = list(dict.fromkeys(possible))
    near = difflib.get_close_matches(word, words, n=MOST_NEAR)
    alike = [difflib.SequenceMatcher(a=candidate, b=word).ratio() for candidate in near]
    if near := [candidate for candidate, ratio in zip(near, alike, strict=True) if ratio > alike[0] - NEXT_BEST]:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"{otherwise}: {shortened(words, most)}"


def shortened(words: Sequence[str], most: int) -> str:
    """List at most `most` words, and say how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return (", ".join(words[:most]) or "none") + more


def nearest_word(word: str, possible: Iterable[str]) -> str | None:
    """Return the possible word that is most like this one; None if none is near."""
    import difflib  # only a mistake pays for it

    return next(iter(difflib.get_close_matches(word, list(possible), n=1)), None)


class InputError(LineageError):
    """The request is wrong; nothing was changed. `faults` holds every fault that was found."""

    exit_code = BAD_INPUT

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults) or (Fault(message),)
        super().__init__("\n".join(str(fault) for fault in self.faults) if faults else message)


class RunError(LineageError):
    """Something failed during its execution."""


class StepError(RunError):
    """A step failed: `step` names it, `log` is the path of its output, `trace` the traceback from its function on."""

    step: str | None = None
    log: str | None = None
    trace: str = ""


class StoppedError(StepError):
    """The run was stopped: this step was ended, or not started."""


class OnHoldError(RunError):
    """An input, or one of its ancestors, is on hold."""


class FileChangedError(RunError):
    """A file changed while it was in use, so the origin of what was made from it is uncertain."""


class ChecksumError(RunError):
    """The bytes received are not the bytes sent."""


class StorageError(RunError):
    """The disk refused to read or write: it is full, read-only, damaged, or closed to this account."""


class PrefectAwayError(RunError):
    """Prefect's API did not answer."""

    exit_code = UNREACHABLE


class IdTakenError(RunError):
    """The id derived from the recipe, `mfid`, belongs to a dataset that must not be adopted."""

    mfid: str


class RecipeConflictError(IdTakenError):
    """The derived id belongs to a record with another recipe."""


class CrucibleError(LineageError):
    """Crucible did not carry out a call.

    `status` is the HTTP status (None without an answer), `detail` the service's explanation as received (text, list or
    object), `code` its machine-readable word, `mfid` the dataset, sample or file that the call was about.
    """

    status: int | None = None
    detail: object = None
    code: str | None = None
    mfid: str | None = None
    retry_after_s: float | None = None


class UnreachableError(CrucibleError):
    """Crucible did not answer. Whether the call took effect is unknown."""

    exit_code = UNREACHABLE


class CertificateError(UnreachableError):
    """The service's certificate is not accepted, or it does not speak TLS."""


class UnauthorizedError(CrucibleError):
    """The key is missing, unknown or expired."""


class ForbiddenError(CrucibleError):
    """The key is valid, but its owner may not do this."""


class NotFoundError(CrucibleError):
    """No such resource, or none that this key may see."""


class ConflictError(CrucibleError):
    """The call contradicts what is stored."""


class FileConflictError(ConflictError):
    """The dataset has a file of this name with other content: `filename`, `file_mfid`, `etag`."""

    filename: str
    file_mfid: str
    etag: str | None


class WithdrawnError(ConflictError):
    """The result is marked for deletion: its id is taken, and it must not be relied on."""


class PreconditionError(CrucibleError):
    """The resource changed since it was read."""


class RefusedError(CrucibleError):
    """Crucible understood the call and rejected it."""


class RateLimitedError(CrucibleError):
    """Too many calls; `retry_after_s` is the wait that the service asks for, if any."""


class ServerError(CrucibleError):
    """The service failed, or its answer violates the contract."""


TRANSIENT = (UnreachableError, ServerError, RateLimitedError)
"""The service is away or busy: the same call may succeed later."""


def require_library(output: str, library: str, extra: str) -> None:
    """Raise InputError if a library is not installed, before any work that needs it."""
    if find_spec(library) is None:
        way_out = f"pip install 'crucible-lineage[{extra}]'"
        raise InputError(f"write {output}: the library {library} is missing; {way_out}")
