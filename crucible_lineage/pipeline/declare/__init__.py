"""From a YAML file to a typed declaration, with all faults that need no code to detect."""
