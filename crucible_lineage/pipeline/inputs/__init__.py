"""The datasets that pipelines start from: looked up or registered; calibrations, corrections, revisions, facts."""
