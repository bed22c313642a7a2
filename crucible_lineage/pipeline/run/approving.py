"""Results that need a signature: stated when they are there, so that every machine knows that they are candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crucible_lineage.core.slots import Filled
from crucible_lineage.errors import CrucibleError
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.known import ProjectKnowledge
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session
from crucible_lineage.statements import AWAIT, About
from crucible_lineage.stating import state

__all__ = ["Approving"]


@dataclass
class Approving:
    """The candidates of one run: `waiting` says by step what waits for whom, `unsigned` are their ids."""

    session: Session
    knowledge: ProjectKnowledge
    waiting: dict[str, str] = field(default_factory=dict)
    unsigned: list[str] = field(default_factory=list)

    def look(
        self, instances: Iterable[tuple[Instance, Mapping[str, DatasetRef]]], slots: Mapping[str, Mapping[str, Filled]]
    ) -> None:
        """State of the results of these steps that they wait for signatures, unless that was stated; find which do.

        `slots` are those that each output is to fill once it is signed.
        """
        for instance, results in instances:
            if instance.step.spec.approve is None:
                continue
            for output, dataset in results.items():
                try:
                    self._state(instance, dataset.mfid, slots.get(output, {}))
                except CrucibleError as error:
                    told = f"{dataset.mfid} needs a signature, which could not be stated: {error}"
                    self.knowledge.note_on_hold(dataset.mfid, told)
                    self.waiting[instance.name] = told
                    continue
                if self.knowledge.is_candidate(dataset.mfid):
                    self.unsigned.append(dataset.mfid)
                    self.waiting[instance.name] = f"{dataset.mfid} waits for a signature"

    def _state(self, instance: Instance, mfid: str, slots: Mapping[str, Filled]) -> None:
        approve = instance.step.spec.approve
        assert approve is not None
        if mfid in self.session.mirror.stated(AWAIT).datasets:
            return
        body = {
            "by": list(approve.by),
            "count": approve.count,
            "maker": str(self.session.agent.get("unique_id") or ""),
            "slots": {key: one.to_json() for key, one in slots.items()},
            **({"not": approve.other_than} if approve.other_than else {}),
        }
        why = f"a result of {instance.step.name} counts once it is signed"
        state(self.session, self.knowledge.project, AWAIT, About((mfid,)), why=why, body=body)
        self.knowledge.hear_statements()
