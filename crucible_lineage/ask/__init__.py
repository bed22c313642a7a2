"""Read-only queries over projects: list, check, verify, diff, impact, explain, bundle."""
