"""The rows of a table, which the script beside this file imports."""


def rows(path):
    """Return the rows."""
    return path.read_text().split()[1:]
