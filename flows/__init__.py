"""Prefect flows: they arrange tasks, nothing else."""

from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.flows.rerunning import rerun
from crucible_lineage.flows.verifying import reproduce_sample, verify_project

__all__ = ["reproduce_sample", "rerun", "run_pipeline", "verify_project"]
