"""Where steps are made: in threads of this process, or as jobs of Slurm."""
