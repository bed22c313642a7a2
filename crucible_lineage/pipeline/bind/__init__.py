"""A declaration and the code that it names, together: every name resolved, every function inspected."""
