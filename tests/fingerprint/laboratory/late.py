"""Imported only when the step runs."""

LATE = 9


def late_helper(value):
    return value + LATE
