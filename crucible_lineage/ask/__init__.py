"""Questions about projects: list, show, table, runs, why, lineage, diff, impact, statements, verify, status, plan."""
