"""A declaration bound to its code: every name resolved, every function inspected."""
