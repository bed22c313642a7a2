"""Results that their step certifies as calibrations: stated once for each result, when it is at Crucible."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from crucible_lineage.amounts import value_text
from crucible_lineage.calibrations import Certificate
from crucible_lineage.certifying import certify
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.spec.inputs import value_of
from crucible_lineage.pipeline.spec.pipeline import Certify
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session

__all__ = ["certify_result"]


def certify_result(
    session: Session,
    pipeline: str,
    project: str,
    instance: Instance,
    instances: Mapping[str, Instance],
    inputs: Inputs,
    dataset: DatasetRef,
) -> None:
    """Certify a result as its step asks for, unless that was stated before: what was taken back since stays so.

    What the same step certified for the same data and time is replaced. Raises InputError if somebody else certified
    another calibration for them, or if the data do not say which instrument or time.
    """
    wanted = instance.step.spec.certify
    assert wanted is not None
    place = f"{pipeline}/{instance.step.name}"
    known = session.mirror.certificates(project)
    if any(one.dataset == dataset.mfid and one.place == place for one in known):
        return
    about = [inputs[root][index] for root, index in instance.about]
    certify(
        session,
        dataset.mfid,
        {name: _shared(name, about) for name in wanted.of},
        _since(wanted, instance, instances, inputs).isoformat(),
        wanted.until,
        kind=wanted.kind or "",
        where=wanted.where,
        why=f"as {place} declares",
        project=project,
        place=place,
        replaced=_own(known, place),
    )


def _own(known: list[Certificate], place: str) -> list[str]:
    return [one.statement for one in known if one.place == place]


def _shared(name: str, about: list[InputItem]) -> str:
    """Return the value of a field that all data have which a result is about."""
    found = {value_text(value) for item in about if (value := value_of(item.fields, name)) not in (None, "")}
    if len(found) != 1:
        told = f"differ in {name}: {', '.join(sorted(found))}" if found else f"have no {name}"
        raise InputError(f"the data it is made from {told}")
    return found.pop()


def _since(wanted: Certify, instance: Instance, instances: Mapping[str, Instance], inputs: Inputs) -> datetime:
    """Return when the first data of the role were measured that the validity begins with."""
    if wanted.role is None:
        return wanted.moment
    places: list[tuple[str, int]] = []
    for feed in instance.feeds:
        if feed.role == wanted.role and feed.instance is not None:
            places += instances[feed.instance].about
        elif feed.role == wanted.role and feed.input is not None:
            places.append((feed.input, feed.index))
    spans = [inputs[root][index].span for root, index in places]
    dated = [span[0] for span in spans if span]
    if not dated or len(dated) < len(spans):
        raise InputError(f"the data behind {wanted.role} have no time of measurement (timestamp)")
    return min(dated)
