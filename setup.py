"""The packages: all that lie in crucible_lineage/, and tasks/, flows/ and deployments/ as packages inside of it."""

import re
import tomllib
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INSIDE = ("tasks", "flows", "deployments")


def readme() -> str:
    """Return README.md for an index: links and pictures that lie in the repository start with its address."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    home = declared["project"]["urls"]["Repository"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{home}/raw/main/", text)
    return re.sub(r"(?<!!)(\[[^\]]*\]\()(?!https?:|#)", rf"\1{home}/blob/main/", pictures)


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    packages=[
        *find_packages(include=["crucible_lineage", "crucible_lineage.*"]),
        *(f"crucible_lineage.{name}" for name in find_packages(include=[f"{top}*" for top in INSIDE])),
    ],
)
