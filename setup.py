"""The packages: all that lie in crucible_lineage/, and tasks/, flows/ and deployments/ as packages inside of it."""

from setuptools import find_packages, setup

INSIDE = ("tasks", "flows", "deployments")

setup(
    packages=[
        *find_packages(include=["crucible_lineage", "crucible_lineage.*"]),
        *(f"crucible_lineage.{name}" for name in find_packages(include=[f"{top}*" for top in INSIDE])),
    ]
)
