"""Names of results as templates, `{spectrum.dataset_name} ({params.degree})`: what may stand in them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from string import Formatter
from types import SimpleNamespace
from typing import Any

__all__ = ["template_fault"]


def template_fault(template: str, roles: Collection[str], params: Mapping[str, Any]) -> str | None:
    """What is wrong with a template, so that it is known before a step runs; None if nothing is.

    Only names of parents and parameters may be asked for: whatever else a template could reach stays where it is.
    """
    allowed = [*(f"{role}.dataset_name" for role in roles), *(f"params.{name}" for name in params), "output", "step"]
    try:
        fields = [(name, spec or "") for _, name, spec, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        return f"the name {template!r} cannot be filled in: {error}"
    for name, spec in fields:
        if name not in allowed or "{" in spec:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {{{near[0]}}}?" if near else f"possible here: {', '.join(allowed)}"
            return f"the name {template!r} has {{{name}}}; {hint}"
    parents = {role: SimpleNamespace(dataset_name="") for role in roles}
    try:
        template.format(**parents, params=SimpleNamespace(**params), output="", step="")
    except (ValueError, TypeError) as error:
        return f"the name {template!r} cannot be filled in: {error}"
    return None
