"""Declared pipelines and deployments, as they are installed with the package."""
