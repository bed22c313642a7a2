"""Steps that are called in code, and not named in a declaration."""
