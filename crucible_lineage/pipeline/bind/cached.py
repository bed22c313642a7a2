"""Pipelines bound from their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crucible_lineage.core.store import Store
from crucible_lineage.pipeline.bind.model import BoundPipeline


def bind_file(path: Path, store: Store | None = None, overrides: Mapping[str, object] | None = None) -> BoundPipeline:
    """Bind the pipeline declared in a file. Raises InputError with every fault in it.

    `overrides` holds parameters for one run, as in {"axis.degree": 4}. With a store, functions whose source files are
    unchanged are not imported again.
    """
    # Imported late: the command line imports this module, and many commands bind nothing.
    from crucible_lineage.pipeline.bind.binder import bind
    from crucible_lineage.pipeline.declare.load import read_declaration

    return bind(read_declaration(path, overrides), store)
