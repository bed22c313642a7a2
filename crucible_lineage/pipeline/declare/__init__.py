"""From a YAML file to a typed declaration, with the faults that can be seen without any code."""
