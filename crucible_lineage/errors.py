"""All errors of crucible-lineage, in one tree.

```text
LineageError
├── InputError                 what was asked for cannot be done as asked; nothing was changed (exit code 2)
├── RunError                   something failed while it was being done (exit code 1)
│   ├── StepError              a step died, timed out, or left no usable result
│   │   ├── StoppedError       it was ended, or not begun, because the run was stopped
│   │   └── ParkedError        it was not begun, because it failed too often
│   ├── OnHoldError            nothing is made of what is on hold, or of what comes from it
│   ├── FileChangedError       a file changed while it was being read or used
│   ├── ChecksumError          bytes that arrived are not the bytes that were sent
│   ├── PrefectAwayError       Prefect's API gave no answer (exit code 3)
│   ├── StorageError           the disk refused: it is full, read-only, not this account's
│   └── IdTakenError           the id is taken by what is not to be adopted: of another project, or with other bytes
│       └── RecipeConflictError    ... or by a record with another recipe
└── CrucibleError              Crucible answered with an error, or not at all
    ├── UnreachableError       no answer: connection refused, lost, timed out (exit code 3)
    │   └── CertificateError   no secure connection to what answers there; waiting does not help
    ├── UnauthorizedError      401
    ├── ForbiddenError         403
    ├── NotFoundError          404
    ├── ConflictError          409
    │   ├── FileConflictError  409, the file name is taken by other content
    │   └── WithdrawnError     a result that is to be deleted, and holds its id until it is
    ├── PreconditionError      412
    ├── RefusedError           400, 413, 422: Crucible understood and will not
    ├── RateLimitedError       429
    └── ServerError            5xx, or an answer that is not what the contract says
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = [
    "TRANSIENT",
    "CertificateError",
    "ChecksumError",
    "ConflictError",
    "CrucibleError",
    "Fault",
    "FileChangedError",
    "FileConflictError",
    "ForbiddenError",
    "IdTakenError",
    "InputError",
    "LineageError",
    "NotFoundError",
    "OnHoldError",
    "ParkedError",
    "PreconditionError",
    "PrefectAwayError",
    "RateLimitedError",
    "RecipeConflictError",
    "RefusedError",
    "RunError",
    "ServerError",
    "StepError",
    "StoppedError",
    "StorageError",
    "UnauthorizedError",
    "UnreachableError",
    "WithdrawnError",
    "missing_library",
    "nearest",
    "nearest_word",
    "no_file",
    "require_library",
    "shortened",
    "shown_path",
]

MOST_NEAR = 3  # possible words that a message about an unknown one suggests
NEXT_BEST = 0.03  # below the best likeness, of 1, that is still a suggestion
MOST_LISTED = 12  # possible words that it lists where none is near


class LineageError(Exception):
    """Base of every error that crucible-lineage raises on purpose. It goes from process to process as it is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[LineageError], arguments: tuple[object, ...], fields: dict[str, Any]) -> LineageError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a declaration: where it stands and what to do about it.

    `place` leads to it within what was looked at (`("params", "degree")` of a step), until file and line are known.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    place: tuple[str | int, ...] = field(default=(), compare=False)

    def to_json(self) -> dict[str, Any]:
        """The fault as programs get it."""
        return {"message": self.message, "file": self.file, "line": self.line, "column": self.column}

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


def shown_path(path: str | PathLike[str]) -> str:
    """Return a path as seen from the working directory if it is below it, else as it is."""
    with suppress(OSError, ValueError):
        return str(Path(path).resolve().relative_to(Path.cwd()))
    return str(path)


def no_file(path: Path) -> InputError:
    """Return the error for a path that is no file: because it is a folder, or because nothing is there."""
    if path.is_dir():
        return InputError(f"{path} is a folder; name its files, as in {path}/*")
    return InputError(f"there is no file {path}")


def nearest(word: str, possible: Iterable[str], otherwise: str = "there are") -> str:
    """End a message about an unknown word: `did you mean 'x' or 'y'?`, or what is possible if nothing is near."""
    import difflib  # only who made a mistake pays for it

    words = list(dict.fromkeys(possible))
    near = difflib.get_close_matches(word, words, n=MOST_NEAR)
    alike = [difflib.SequenceMatcher(a=one, b=word).ratio() for one in near]
    if near := [one for one, ratio in zip(near, alike, strict=True) if ratio > alike[0] - NEXT_BEST]:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"{otherwise}: {shortened(words, MOST_LISTED)}"


def shortened(words: Sequence[str], most: int) -> str:
    """List the words, at most so many of them; of more, how many there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return (", ".join(words[:most]) or "none") + more


def nearest_word(word: str, possible: Iterable[str]) -> str | None:
    """The possible word that is most like this one; None if none is."""
    import difflib  # only who made a mistake pays for it

    return next(iter(difflib.get_close_matches(word, list(possible), n=1)), None)


class InputError(LineageError):
    """The request is wrong as it stands; nothing was changed. `faults` holds every fault that was found."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults) or (Fault(message),)
        super().__init__("\n".join(str(fault) for fault in self.faults) if faults else message)


class RunError(LineageError):
    """Something failed while it was being done."""


class StepError(RunError):
    """A step did not deliver: `step` names it, `log` is where its output lies, if anywhere.

    `trace` is the traceback from its function on, if that failed.
    """

    def __init__(self, message: str, *, step: str | None = None, log: str | None = None, trace: str = "") -> None:
        self.step = step
        self.log = log
        self.trace = trace
        super().__init__(message)


class StoppedError(StepError):
    """The run was stopped, and with it this step: it was ended, or not begun."""


class ParkedError(StepError):
    """The step failed so often that it was not begun."""


class OnHoldError(RunError):
    """An input, or one of its ancestors, is on hold."""


class FileChangedError(RunError):
    """A file changed between two looks at it, so that what was made from it has no certain origin."""


class ChecksumError(RunError):
    """The bytes that arrived are not the bytes that were sent."""


class StorageError(RunError):
    """The disk refused to keep or to give something: it is full, read-only, damaged, or not this account's to write."""


class PrefectAwayError(RunError):
    """Prefect's API gave no answer."""


class IdTakenError(RunError):
    """The id that the recipe gives is taken by what is not to be adopted for it. `mfid` is that id."""

    def __init__(self, message: str, *, mfid: str) -> None:
        self.mfid = mfid
        super().__init__(message)


class RecipeConflictError(IdTakenError):
    """The derived id is taken by a record whose recipe is another one."""


class CrucibleError(LineageError):
    """Crucible did not do what was asked.

    `status` is the HTTP status (None without an answer), `detail` what the service said (text, list or object, as it
    came), `code` the machine-readable word in it, `mfid` the dataset, sample or file that the call was about.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        detail: object = None,
        code: str | None = None,
        mfid: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.detail = detail
        self.code = code
        self.mfid = mfid
        self.retry_after_s = retry_after_s
        super().__init__(message)


class UnreachableError(CrucibleError):
    """No answer came. Whether the call took effect is not known."""


class CertificateError(UnreachableError):
    """The service has no accepted certificate, or does not speak TLS."""


class UnauthorizedError(CrucibleError):
    """The key is missing, unknown or expired."""


class ForbiddenError(CrucibleError):
    """The key is good, but this is not allowed to its owner."""


class NotFoundError(CrucibleError):
    """No such resource, or none that this key may see."""


class ConflictError(CrucibleError):
    """The call contradicts what is stored."""


class FileConflictError(ConflictError):
    """The dataset has a file of this name with other content. `filename`, `file_mfid` and `etag` name it."""

    def __init__(self, message: str, *, filename: str, file_mfid: str, etag: str | None, **fields: Any) -> None:
        self.filename = filename
        self.file_mfid = file_mfid
        self.etag = etag
        super().__init__(message, **fields)


class WithdrawnError(ConflictError):
    """The result is to be deleted: its id is taken, and it is not to be relied on."""


class PreconditionError(CrucibleError):
    """The resource changed since it was read."""


class RefusedError(CrucibleError):
    """Crucible understood the call and will not carry it out as it is."""


class RateLimitedError(CrucibleError):
    """Too many calls; `retry_after_s` says when to come back, if the service said so."""


class ServerError(CrucibleError):
    """The service failed, or answered with something the contract does not have."""


TRANSIENT = (UnreachableError, ServerError, RateLimitedError)
"""The service is away or busy: the same call may succeed later."""


def require_library(what: str, library: str, extra: str) -> None:
    """Raise InputError if a library is not installed, before any work is done that needs it in the end."""
    if find_spec(library) is None:
        raise missing_library(what, library, extra)


def missing_library(what: str, library: str, extra: str) -> InputError:
    """The error to raise where `library` cannot be imported."""
    return InputError(f"write {what}: the library {library} is missing; pip install 'crucible-lineage[{extra}]'")
