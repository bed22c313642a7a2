"""CSV files are read alike wherever: tables of corrections, and files in notebooks, with and without pandas."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.notebook.dataset import load_file
from crucible_lineage.pipeline.plan.corrections import read_table

Read = Callable[[bytes], list[dict[str, Any]]]


@pytest.fixture(params=["set --from", "load with pandas", "load without pandas"])
def read(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return the rows that are read from a file with this content; values as text."""
    if request.param == "load without pandas":
        monkeypatch.setitem(sys.modules, "pandas", None)

    def rows(content: bytes) -> list[dict[str, Any]]:
        path = tmp_path / "t.csv"
        path.write_bytes(content)
        if request.param == "set --from":
            found = [{"mfid": mfid, **values} for _, mfid, values in read_table(path)]
        else:
            loaded = load_file(path)
            found = loaded if isinstance(loaded, list) else loaded.to_dict("records")
        return [{name: str(value) for name, value in row.items()} for row in found]

    return rows


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfmfid,metadata.x\nA,0.5\nB,1.5\n",
        b"mfid;metadata.x\nA;0,5\nB;1,5\n",
        b"mfid,metadata.x\r\nA,0.5\r\nB,1.5\r\n",
        b"\n\nmfid,metadata.x\n\nA,0.5\n\nB,1.5\n\n",
        b"mfid,metadata.x\nA,0.5,\nB,1.5,\n",
        b"# laser_nm: 632.8\n\n# operator: Ada, Bo\nmfid,metadata.x\nA,0.5\nB,1.5\n",
    ],
    ids=["byte order mark", "semicolons", "CRLF", "blank lines", "separators at the ends", "comments"],
)
def test_each_form_gives_the_same_rows(read: Read, content: bytes) -> None:
    assert read(content) == [{"mfid": "A", "metadata.x": "0.5"}, {"mfid": "B", "metadata.x": "1.5"}]


def test_columns_of_numbers_are_named_by_the_last_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# made by savetxt\n# shift,counts\n1,2\n3,4\n")  # as NumPy does with `header`
    assert load_file(path).to_dict("list") == {"shift": [1, 3], "counts": [2, 4]}
    path.write_text("# made, by, savetxt\n1,2\n3,4\n")
    assert list(load_file(path).columns) == ["column_1", "column_2"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    path.write_text("# shift,counts\n1,2\n")
    assert load_file(path) == [{"shift": "1", "counts": "2"}]


def test_a_line_break_in_a_cell_ends_no_row(read: Read) -> None:
    assert [row["mfid"] for row in read(b'mfid,name\nA,"one\ntwo"\nB,three\n')] == ["A", "B"]


@pytest.mark.parametrize(
    "content",
    [
        b"mfid,metadata.x\nA,1,2\nB,1,2\n",
        b"mfid,metadata.x\nA,1\nB,1,2\n",
        b'mfid,metadata.x\nA,"1\nB,2\n',
        b"mfid,metadata." + b"x" * 200_000 + b"\nA,1\n",
        b"mfid,metadata.x\nA,\xb5\n",
        b"",
    ],
    ids=["cells without a column", "in a later row", "an open quotation", "a huge cell", "not UTF-8", "empty"],
)
def test_a_bad_row_is_refused_and_no_cell_is_moved_or_lost(read: Read, content: bytes) -> None:
    with pytest.raises(InputError, match="cannot be read as"):
        read(content)


def test_the_line_of_a_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'# by hand\nmfid,name\nA,"one\ntwo"\n\nB,1,2\n')
    with pytest.raises(InputError, match="line 6: there are more cells than columns"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="line 6: there are more cells than columns"):
        load_file(path)


def test_columns_of_one_name_are_kept_apart_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"mfid,metadata.x,metadata.x\nA,1,2\n")
    with pytest.raises(InputError, match=r"two columns 'metadata\.x'"):
        read_table(path)
    names = ["mfid", "metadata.x", "metadata.x.1"]
    assert list(load_file(path).columns) == names
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert [list(row) for row in load_file(path)] == [names]


def test_corrections_skip_empty_rows_and_convert_only_metadata(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"mfid;session_name;metadata.x;metadata.y\nA;1,5;1,5;a, b\n;;;\n")
    assert read_table(path) == [(f"{path}:2", "A", {"session_name": "1,5", "metadata.x": 1.5, "metadata.y": "a, b"})]
    path.write_bytes(b"mfid,metadata.x\nA,[1\n")
    with pytest.raises(InputError, match=r"t\.csv:2: metadata\.x:\d+:\d+: "):
        read_table(path)
