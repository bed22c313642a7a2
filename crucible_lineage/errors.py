"""All errors of crucible-lineage, in one tree.

LineageError
├── InputError                 what was asked for cannot be done as asked; nothing was changed (exit code 2)
├── RunError                   something failed while it was being done (exit code 1)
│   ├── StepError              a step died, timed out, or left no usable result
│   ├── FileChangedError       a file changed while it was being read or used
│   ├── ChecksumError          bytes that arrived are not the bytes that were sent
│   └── RecipeConflictError    the id is taken by a record with another recipe
└── CrucibleError              Crucible answered with an error, or not at all
    ├── UnreachableError       no answer: connection refused, lost, timed out
    ├── UnauthorizedError      401
    ├── ForbiddenError         403
    ├── NotFoundError          404
    ├── ConflictError          409
    │   └── FileConflictError  409, the file name is taken by other content
    ├── PreconditionError      412
    ├── RefusedError           400, 413, 422: Crucible understood and will not
    ├── RateLimitedError       429
    └── ServerError            5xx, or an answer that is not what the contract says
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ChecksumError",
    "ConflictError",
    "CrucibleError",
    "FileChangedError",
    "FileConflictError",
    "Finding",
    "ForbiddenError",
    "InputError",
    "LineageError",
    "NotFoundError",
    "PreconditionError",
    "RateLimitedError",
    "RecipeConflictError",
    "RefusedError",
    "RunError",
    "ServerError",
    "StepError",
    "UnauthorizedError",
    "UnreachableError",
]


class LineageError(Exception):
    """Base of every error that crucible-lineage raises on purpose. It goes from process to process as it is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[LineageError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> LineageError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a declaration: where it stands and what to do about it."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


class InputError(LineageError):
    """The request is wrong as it stands; nothing was changed. `findings` holds every fault that was found."""

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        self.findings = tuple(findings) or (Finding(message),)
        super().__init__("\n".join(str(finding) for finding in self.findings) if findings else message)


class RunError(LineageError):
    """Something failed while it was being done."""


class StepError(RunError):
    """A step did not deliver: `step` names it, `log` is where its output lies, if anywhere."""

    def __init__(self, message: str, *, step: str | None = None, log: str | None = None) -> None:
        self.step = step
        self.log = log
        super().__init__(message)


class FileChangedError(RunError):
    """A file changed between two looks at it, so that what was made from it has no certain origin."""


class ChecksumError(RunError):
    """The bytes that arrived are not the bytes that were sent."""


class RecipeConflictError(RunError):
    """The derived id is taken by a record whose recipe is another one. `mfid` is that id."""

    def __init__(self, message: str, *, mfid: str) -> None:
        self.mfid = mfid
        super().__init__(message)


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
        detail: Any = None,
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


class PreconditionError(CrucibleError):
    """The resource changed since it was read."""


class RefusedError(CrucibleError):
    """Crucible understood the call and will not carry it out as it is."""


class RateLimitedError(CrucibleError):
    """Too many calls; `retry_after_s` says when to come back, if the service said so."""


class ServerError(CrucibleError):
    """The service failed, or answered with something the contract does not have."""
