"""Whose a dataset is, and under which licence: the one answer for pages, crates and bundles.

The metadata of a dataset say it by `license`, `creators` and `rights`; what they leave open, those of its project say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crucible_lineage.lineage.records import mapping, text

KEYS = ("license", "creators", "rights")  # of metadata
_ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", re.ASCII)
_SPDX = re.compile(
    r"CC0-1\.0|CC-BY(-NC)?(-SA|-ND)?-[1-4]\.\d|MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|MPL-2\.0|Unlicense"
    r"|(A|L)?GPL-[23]\.\d-(only|or-later)|ODbL-1\.0|ODC-By-1\.0|PDDL-1\.0|EUPL-1\.2|CERN-OHL-[PSW]-2\.0|OGL-UK-3\.0"
)


@dataclass(frozen=True)
class Creator:
    """Somebody who made data. `orcid` is empty where it is not known."""

    name: str
    orcid: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.orcid})" if self.orcid else self.name


@dataclass(frozen=True)
class Rights:
    """What is stated: the licence, by its SPDX name, URL or in words; who made it; who holds rights in it."""

    license: str = ""
    creators: tuple[Creator, ...] = ()
    holder: str = ""

    def or_else(self, other: Rights) -> Rights:
        """Return this, with what it leaves open from `other`."""
        return Rights(self.license or other.license, self.creators or other.creators, self.holder or other.holder)

    def lines(self) -> Iterator[str]:
        """Yield what people read."""
        if self.license:
            yield f"licence: {self.license}"
        if self.creators:
            yield f"creators: {', '.join(map(str, self.creators))}"
        if self.holder:
            yield f"rights: {self.holder}"


def stated_rights(metadata: Mapping[str, Any] | None) -> Rights:
    """Return what the metadata of a dataset or project state; what is no text or list of people counts as nothing."""
    said = mapping(metadata)
    return Rights(text(said.get("license")).strip(), tuple(_creators(said.get("creators"))), text(said.get("rights")))


def rights_of(record: Mapping[str, Any] | None, projects: Mapping[str, Rights]) -> Rights:
    """Return what holds for a dataset, with `projects` by their ID."""
    known = mapping(record)
    own = stated_rights(mapping(known.get("scientific_metadata")))
    return own.or_else(projects.get(text(known.get("project_id")), Rights()))


def creator_of(said: str) -> Creator:
    """Return somebody from a text such as `Ada Lovelace (0000-0002-1825-0097)`."""
    found = _ORCID.search(said)
    if found is None:
        return Creator(said.strip())
    rest = said.replace("https://orcid.org/", "").replace(found[0], "")
    return Creator(" ".join(re.sub(r"[()<>\[\],;]", " ", rest).split()) or found[0], found[0])


def license_iri(said: str) -> str:
    """Return the URL of a licence; empty if it is neither a URL nor a common SPDX name."""
    if re.match(r"https?://\S+$", said):
        return said
    return f"https://spdx.org/licenses/{said}" if _SPDX.fullmatch(said) else ""


def _creators(said: object) -> Iterator[Creator]:
    for one in said if isinstance(said, Sequence) and not isinstance(said, str) else [said]:
        if isinstance(one, str) and one.strip():
            yield creator_of(one)
        elif isinstance(one, Mapping) and text(one.get("name")):
            orcid = _ORCID.search(text(one.get("orcid")))
            yield Creator(text(one.get("name")), orcid[0] if orcid else "")
