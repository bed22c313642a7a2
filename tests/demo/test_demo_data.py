"""The measured files that come with the package: unchanged, licensed, and claiming nothing they do not know."""

from __future__ import annotations

import hashlib

import pytest

from crucible_lineage.demo import RAW_FILES, data_folder
from crucible_lineage.demo.spectra import read_spectrum


@pytest.mark.parametrize("raw", RAW_FILES, ids=lambda raw: raw.role)
def test_a_measured_file_is_the_one_its_readme_describes(raw):
    readme = (data_folder() / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(raw.path.read_bytes()).hexdigest()

    row = next(line for line in readme.splitlines() if line.startswith(f"| `{raw.filename}`"))

    assert digest in row


@pytest.mark.parametrize("raw", RAW_FILES, ids=lambda raw: raw.role)
def test_no_time_of_acquisition_is_claimed_for_a_file_that_has_no_header(raw):
    assert read_spectrum(raw.path).header == {}
    assert raw.timestamp is None


def test_the_licence_of_the_measured_files_is_beside_them():
    text = (data_folder() / "LICENSE-ramanchada2.txt").read_text(encoding="utf-8")

    assert text.startswith("MIT License")
    assert "CHARISMA H2020 project" in text
