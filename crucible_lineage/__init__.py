"""Processing flows on Prefect that register every result in Crucible, exactly once, with its provenance."""

from crucible_lineage.step import step

__all__ = ["__version__", "step"]
__version__ = "0.1.0"
