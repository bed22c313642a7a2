"""Helpers of helpers."""

__all__ = ["starred"]


def median(value):
    return value / 2


def starred(value):
    return value + 8
