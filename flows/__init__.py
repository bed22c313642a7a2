"""Prefect flows: they arrange tasks, nothing else."""

from crucible_lineage.flows.pipelines import run_pipeline

__all__ = ["run_pipeline"]
