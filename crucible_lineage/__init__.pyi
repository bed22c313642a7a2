from crucible_lineage.notebook.catalogue import Catalogue as Catalogue
from crucible_lineage.notebook.catalogue import connect as connect
from crucible_lineage.notebook.catalogue import registering as registering
from crucible_lineage.notebook.dataset import Dataset as Dataset
from crucible_lineage.notebook.dataset import add_loader as add_loader
from crucible_lineage.refs import DatasetFacts as DatasetFacts
from crucible_lineage.refs import Facts as Facts
from crucible_lineage.step import step as step

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
__version__: str
