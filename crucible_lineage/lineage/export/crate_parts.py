"""What a crate is made of besides its entities: what it says of itself, and the texts that lie in it."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from crucible_lineage.lineage.export.activities import ExportedActivity, Use
from crucible_lineage.lineage.export.crate_profiles import PROFILES
from crucible_lineage.lineage.labels import plain
from crucible_lineage.lineage.rights import Rights

__all__ = [
    *("METADATA", "PREVIEW", "CrateHeader", "TextFile", "flat_software", "media_type", "readme_text", "utf8"),
    "workflow_text",
]

METADATA, PREVIEW = "ro-crate-metadata.json", "ro-crate-preview.html"


@dataclass(frozen=True)
class TextFile:
    """A file of the crate that is no data: its path, what it is, its text."""

    path: str
    name: str
    text: str


@dataclass(frozen=True)
class CrateHeader:
    """What the crate says of itself: name, content, when it was made, from which Crucible, under which licence.

    `license` is a URL, empty where none is stated for the crate. `profile` is one of `PROFILES`, `projects` what holds
    for data of projects, `about` the dataset that the crate is about.
    """

    name: str
    description: str
    published: str
    crucible_name: str
    crucible_url: str
    version: str
    license: str = ""
    profile: str = PROFILES[0]
    projects: Mapping[str, Rights] = field(default_factory=dict)
    about: str = ""


def workflow_text(steps: Sequence[ExportedActivity]) -> str:
    """The steps that were executed and what each was given, as the text of the workflow file."""
    makers = {made.mfid: (activity, made.role) for activity in steps for made in activity.made}

    def origin(use: Use) -> str:
        maker = makers.get(use.mfid)
        return f"{maker[0].id}.{maker[1]}" if maker else use.mfid

    executions = [
        {
            "id": activity.id,
            "step": activity.step,
            "function": activity.function,
            "code": activity.code,
            "params": activity.params or {},
            "inputs": [{"role": use.role, "from": origin(use)} for use in activity.used],
            "outputs": [{"role": made.role, "dataset": made.mfid} for made in activity.made],
        }
        for activity in steps
    ]
    workflow = {"format": "crucible-lineage/workflow/1", "executions": executions}
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


def readme_text(header: CrateHeader, rights: Rights, extras: Sequence[TextFile]) -> str:
    """Return the text of README.md; names in it are no markup."""
    listed = [f"- `{file.path}`: {escape(plain(file.name))}" for file in extras if "/" not in file.path]
    about = [f"# {escape(plain(header.name))}", "", escape(plain(header.description)), ""]
    machine = f"`{METADATA}` describes everything here for programs (RO-Crate, https://w3id.org/ro/crate)."
    about += [*(f"- {escape(plain(line))}" for line in rights.lines()), ""] if rights != Rights() else []
    return "\n".join([*about, machine, "", *listed]).rstrip() + "\n"


def flat_software(software: Mapping[str, object]) -> dict[str, str]:
    """Return the software by name: Python, the platform, and each package with its version."""
    packages = software.get("packages")
    found = {key: value for key, value in software.items() if isinstance(value, str)}
    return found | ({name: str(version) for name, version in packages.items()} if isinstance(packages, Mapping) else {})


def utf8(content: str) -> bytes:
    """Return the bytes of a text. A lone surrogate, which UTF-8 cannot hold, is spelled out, as JSON does it."""
    return content.encode("utf-8", "backslashreplace")


def media_type(name: str) -> str:
    """The media type that the file's ending stands for."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
