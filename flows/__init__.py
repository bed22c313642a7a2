"""Prefect flows: they arrange tasks, nothing else."""

from crucible_lineage.flows.pipelines import run_pipeline
from crucible_lineage.flows.process_new import process_new
from crucible_lineage.flows.rerunning import rerun
from crucible_lineage.flows.verifying import verify_project

__all__ = ["process_new", "rerun", "run_pipeline", "verify_project"]
