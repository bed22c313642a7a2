"""A helper that holds a secret, so that no archive of source takes it."""

ADDRESS = "postgres://ada:hunter2@database/lab"


def weight() -> float:
    """Return a weight."""
    return len(ADDRESS) / 2
