"""Errors that are raised in another process arrive as they were."""

from __future__ import annotations

import pickle

import pytest

from crucible_lineage.errors import (
    Fault,
    FileConflictError,
    InputError,
    LineageError,
    RateLimitedError,
    RecipeConflictError,
    StepError,
)


@pytest.mark.parametrize(
    "error",
    [
        InputError("", [Fault("no such step", "a.yaml", 3)]),
        StepError("it died", step="axis", log="step.log"),
        RecipeConflictError("taken", mfid="0tr5k2ndm5zvd000nr21qakeh4"),
        FileConflictError("taken", filename="a.txt", file_mfid="0tr5k2ndm5zvd000nr21qakeh4", etag=None, status=409),
        RateLimitedError("slow down", status=429, retry_after_s=3.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_class_words_and_fields(error: LineageError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))
