"""The versions of Workflow Run RO-Crate that a crate can follow, and what each of them stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BASES", "PROFILES", "TERMS", "Basis"]

TERMS = "https://w3id.org/ro/terms/workflow-run#"
_NAMES = (
    *("environment", "resourceUsage", "containerImage", "ContainerImage", "registry", "tag"),
    *("ParameterConnection", "connection", "sourceParameter", "targetParameter"),
)
_RUNS = {"process": "Process Run Crate", "workflow": "Workflow Run Crate", "provenance": "Provenance Run Crate"}


@dataclass(frozen=True)
class Basis:
    """What a version of the profile stands on: which RO-Crate, which Workflow RO-Crate.

    The context of RO-Crate decides which IRIs `ComputationalWorkflow`, `FormalParameter`, `input` and `output` have;
    they are not the same in 1.1 and 1.3. `terms` are those that this context lacks. `in_descriptor` is what the
    metadata file conforms to besides RO-Crate, `says_where` whether files that are not in the crate have a place in it.
    """

    version: str
    crate: str
    workflow: str
    types: tuple[str, ...]
    terms: Mapping[str, str]
    in_descriptor: str = ""
    says_where: bool = False

    @property
    def profiles(self) -> dict[str, str]:
        """Return the profiles of a crate with step executions: names by IRI."""
        runs = {f"https://w3id.org/ro/wfrun/{kind}/{self.version}": name for kind, name in _RUNS.items()}
        return {**runs, self.workflow: "Workflow RO-Crate"}


_WORKFLOW = "https://w3id.org/workflowhub/workflow-ro-crate"
_TERMS = {name: TERMS + name for name in _NAMES}
_OLD_TERMS = {
    "sha256": f"{TERMS}sha256",
    "buildInstructions": "https://codemeta.github.io/terms/buildInstructions",
    "copyrightNotice": "http://schema.org/copyrightNotice",
}
BASES = {
    "0.5": Basis(
        "0.5", "1.1", f"{_WORKFLOW}/1.0", ("CreativeWork",), _TERMS | _OLD_TERMS, in_descriptor=f"{_WORKFLOW}/1.0"
    ),
    "0.6": Basis("0.6", "1.3", f"{_WORKFLOW}/1.1", ("CreativeWork", "Profile"), _TERMS, says_where=True),
}
PROFILES = tuple(BASES)  # the first by default: validators know it
