"""Prefect flows: `pipelines` runs a declared pipeline, `commands` one of the program's commands."""
