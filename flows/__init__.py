"""Prefect flows: `pipelines` runs a declared pipeline, `upkeep` verifies, reproduces and renews results."""
