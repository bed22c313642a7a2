"""A helper that holds a secret, so that no archive of source takes it."""


def weight() -> float:
    """Return a weight."""
    return 20.5  # was in postgres://ada:hunter2@database/lab
