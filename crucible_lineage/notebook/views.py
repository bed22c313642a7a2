"""Plans, runs, tables and lineages for notebooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crucible_lineage.lineage.draw.svg import render_svg
from crucible_lineage.lineage.draw.tree import render_tree
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import csv_text, nodes_text
from crucible_lineage.notebook.dataset import Dataset, Datasets
from crucible_lineage.notebook.html import block, line, rows_table, steps_table, strong
from crucible_lineage.pipeline.plan.plan import PipelinePlan, StepPlan
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.queries.table import Table

if TYPE_CHECKING:
    from crucible_lineage.notebook.catalogue import Catalogue

__all__ = ["Lineage", "PlanView", "Rows", "RunView"]


@dataclass(frozen=True)
class PlanView:
    """Plan of a run: for each step whether its result exists, and if not, why."""

    pipeline: str
    planned: PipelinePlan

    @property
    def steps(self) -> tuple[StepPlan, ...]:
        """The instances of the steps, in an order in which they can run."""
        return self.planned.steps

    @property
    def is_fresh(self) -> bool:
        """True if nothing would be made."""
        return self.planned.is_fresh

    def __repr__(self) -> str:
        states = Counter(step.state for step in self.steps)
        return f"<plan of {self.pipeline}: {', '.join(f'{count} {state}' for state, count in states.items())}>"

    def __str__(self) -> str:
        return "\n".join(
            f"{step.name}: {step.state}{f' ({causes})' if (causes := '; '.join(step.causes)) else ''}"
            for step in self.steps
        )

    def _repr_html_(self) -> str:
        rows = [(step.name, step.state, "; ".join(step.causes)) for step in self.steps]
        return block(line(strong(self.pipeline)), steps_table(("step", "state", "why"), rows))


@dataclass(frozen=True)
class RunView:
    """Outcome of a run of a pipeline; `run["fit"]` is the result of that step."""

    catalogue: Catalogue
    result: RunResult

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.result.run_id

    @property
    def outcomes(self) -> Mapping[str, str]:
        """How each instance of a step ended: executed, reused, left out."""
        return self.result.outcomes

    @property
    def datasets(self) -> Datasets:
        """All results of its steps, new or existing."""
        mfids = (mfid for outputs in self.result.datasets.values() for mfid in outputs.values())
        return Datasets(self.catalogue, tuple(dict.fromkeys(mfids)))

    def __getitem__(self, step: str) -> Dataset | Datasets:
        """Return the dataset of a step or of one of its instances (`fit[a.txt]`), or datasets if there are several."""
        names = [name for name in self.result.datasets if step in (name, name.partition("[")[0])]
        if not names:
            raise KeyError(f"the run has no step {step!r}; there are: {', '.join(self.result.datasets)}")
        datasets = Datasets(self.catalogue, [mfid for name in names for mfid in self.result.datasets[name].values()])
        return datasets[0] if len(datasets) == 1 else datasets

    def __repr__(self) -> str:
        return f"<run {self.run_id} of {self.result.pipeline}: {len(self.result.executed)} executed>"

    def _repr_html_(self) -> str:
        rows = [
            (step, outcome, ", ".join(self.result.datasets.get(step, {}).values()))
            for step, outcome in self.outcomes.items()
        ]
        return block(
            line(strong(self.result.pipeline), f"run <code>{self.run_id}</code>"),
            steps_table(("step", "outcome", "dataset"), rows),
        )


@dataclass(frozen=True)
class Lineage:
    """The ancestors and descendants of a dataset. `graph` has the nodes and edges; notebooks show a drawing."""

    graph: LineageGraph
    mfid: str

    @cached_property
    def svg(self) -> str:
        """The drawing as SVG."""
        return render_svg(self.graph, self.mfid)

    def __repr__(self) -> str:
        return f"<lineage of {self.mfid}: {nodes_text(len(self))}>"

    def __str__(self) -> str:
        return render_tree(self.graph, self.mfid)

    def __len__(self) -> int:
        return len(self.graph)

    def _repr_html_(self) -> str:
        return f'<div style="overflow:auto;max-width:100%">{self.svg}</div>'


@dataclass(frozen=True)
class Rows:
    """A table without pandas: `columns`, and a tuple of values for each row."""

    table: Table

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self.table.columns

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.table.rows)

    def __len__(self) -> int:
        return len(self.table)

    def __str__(self) -> str:
        return csv_text(self.table.columns, self.table.rows)

    def _repr_html_(self) -> str:
        return block(rows_table(self.table.columns, self.table.rows))
