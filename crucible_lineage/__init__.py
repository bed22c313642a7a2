"""Processing flows on Prefect that register every result in Crucible, exactly once, with its provenance."""

from __future__ import annotations

__version__ = "0.1.0"
