"""Processing flows on Prefect that register every result in Crucible, exactly once, with its provenance.

Names are imported when they are first used: `import crucible_lineage as cl` costs next to nothing. Type checkers read
__init__.pyi.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from crucible_lineage.refs import DatasetFacts, Facts
from crucible_lineage.step import step

__all__ = [
    "Catalogue",
    "Dataset",
    "DatasetFacts",
    "Facts",
    "__version__",
    "add_loader",
    "connect",
    "registering",
    "step",
]
__version__ = "0.1.0"

_LAZY = {
    "Catalogue": "catalogue",
    "Dataset": "dataset",
    "add_loader": "dataset",
    "connect": "catalogue",
    "registering": "catalogue",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.notebook.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
