"""Engines, which execute steps: in threads of this process, or as Slurm jobs."""
