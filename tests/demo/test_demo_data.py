"""The measured files that come with the package: unchanged, licensed, and claiming nothing they do not know."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from crucible_lineage import demo
from crucible_lineage.demo.spectra import read_spectrum

DATA = Path(demo.__file__).parent / "data"
MEASURED = sorted(DATA.glob("*Z010*.txt"))


@pytest.mark.parametrize("raw", MEASURED, ids=lambda raw: raw.name)
def test_a_measured_file_is_the_one_its_readme_describes(raw):
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()

    row = next(line for line in readme.splitlines() if line.startswith(f"| `{raw.name}`"))

    assert digest in row


@pytest.mark.parametrize("raw", MEASURED, ids=lambda raw: raw.name)
def test_a_measured_file_has_no_header_that_could_claim_a_time_of_acquisition(raw):
    assert read_spectrum(raw).header == {}


def test_the_licence_of_the_measured_files_is_beside_them():
    text = (DATA / "LICENSE-ramanchada2.txt").read_text(encoding="utf-8")

    assert text.startswith("MIT License")
    assert "CHARISMA H2020 project" in text
