"""Owners and licence of a dataset, for pages, crates and bundles.

They are in its metadata under `license`, `creators` and `rights`; those of its project fill gaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crucible_lineage.ids import ORCID
from crucible_lineage.lineage.records import mapping, text

KEYS = ("license", "creators", "rights")  # of metadata
_SPDX = re.compile(
    r"CC0-1\.0|CC-BY(-NC)?(-SA|-ND)?-[1-4]\.\d|MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|MPL-2\.0|Unlicense"
    r"|(A|L)?GPL-[23]\.\d-(only|or-later)|ODbL-1\.0|ODC-By-1\.0|PDDL-1\.0|EUPL-1\.2|CERN-OHL-[PSW]-2\.0|OGL-UK-3\.0"
)


@dataclass(frozen=True)
class Creator:
    """A person who made data. `orcid` is empty if unknown."""

    name: str
    orcid: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.orcid})" if self.orcid else self.name


@dataclass(frozen=True)
class Rights:
    """Stated rights: the licence, by SPDX name, URL or in words; the creators; the rights holder."""

    license: str = ""
    creators: tuple[Creator, ...] = ()
    holder: str = ""

    def or_else(self, other: Rights) -> Rights:
        """Return these rights, with missing ones from `other`."""
        return Rights(self.license or other.license, self.creators or other.creators, self.holder or other.holder)

    def lines(self) -> Iterator[str]:
        """Yield the rights as lines of text."""
        if self.license:
            yield f"licence: {self.license}"
        if self.creators:
            yield f"creators: {', '.join(map(str, self.creators))}"
        if self.holder:
            yield f"rights: {self.holder}"


def stated_rights(metadata: Mapping[str, object] | None) -> Rights:
    """Return the rights in the metadata of a dataset or project; invalid values are ignored."""
    fields = mapping(metadata)
    creators = tuple(_creators(fields.get("creators")))
    return Rights(text(fields.get("license")).strip(), creators, text(fields.get("rights")))


def rights_of(record: Mapping[str, object] | None, projects: Mapping[str, Rights]) -> Rights:
    """Return the rights of a dataset, with those of `projects` by project id."""
    fields = mapping(record)
    own = stated_rights(mapping(fields.get("scientific_metadata")))
    return own.or_else(projects.get(text(fields.get("project_id")), Rights()))


def creator_of(stated: str) -> Creator:
    """Parse a creator from text such as `Ada Lovelace (0000-0002-1825-0097)`."""
    orcid = ORCID.search(stated)
    if orcid is None:
        return Creator(stated.strip())
    rest = stated.replace("https://orcid.org/", "").replace(orcid[0], "")
    return Creator(" ".join(re.sub(r"[()<>\[\],;]", " ", rest).split()) or orcid[0], orcid[0])


def license_iri(stated: str) -> str:
    """Return the URL of a licence; empty if it is neither a URL nor a common SPDX name."""
    if re.match(r"https?://\S+$", stated):
        return stated
    return f"https://spdx.org/licenses/{stated}" if _SPDX.fullmatch(stated) else ""


def _creators(stated: object) -> Iterator[Creator]:
    for entry in stated if isinstance(stated, Sequence) and not isinstance(stated, str) else [stated]:
        if isinstance(entry, str) and entry.strip():
            yield creator_of(entry)
        elif isinstance(entry, Mapping) and text(entry.get("name")):
            orcid = ORCID.search(text(entry.get("orcid")))
            yield Creator(text(entry.get("name")), orcid[0] if orcid else "")
