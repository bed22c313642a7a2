"""Prefect flows: they arrange tasks, nothing else."""

from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.flows.upkeep import reproduce_sample, rerun, verify_project

__all__ = ["reproduce_sample", "rerun", "run_pipeline", "verify_project"]
