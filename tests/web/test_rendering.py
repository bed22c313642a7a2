"""What templates may ask for: keys that a record lacks are empty, attributes that no object has are mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from jinja2 import UndefinedError

from crucible_lineage.web.rendering import _environment


@dataclass(frozen=True)
class _Entry:
    name: str = "scan"


def test_an_attribute_that_no_object_has_is_refused_and_a_key_that_a_record_lacks_is_empty() -> None:
    template = _environment().from_string("{{ one.name }}{{ one.renamed.project }}")
    assert template.render(one={"name": "scan"}) == "scan"
    with pytest.raises(UndefinedError, match="_Entry has no attribute 'renamed'"):
        template.render(one=_Entry())
