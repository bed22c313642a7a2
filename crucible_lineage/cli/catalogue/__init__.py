"""Commands about what a project holds: list, show, get, table, runs."""
