"""Folders of work are removed whole."""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.core.folders import remove_folder


def test_a_folder_is_removed_while_a_process_that_ends_still_adds_files(tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended, begun = threading.Event(), threading.Event()

        def add(folder: Path = folder, ended: threading.Event = ended, begun: threading.Event = begun) -> None:
            with suppress(FileNotFoundError):  # it is removed
                for name in count():
                    (folder / str(name)).touch()
                    begun.set()
                    if ended.is_set():
                        return

        adding = threading.Thread(target=add)
        adding.start()
        begun.wait()
        threading.Timer(0.02, ended.set).start()
        remove_folder(folder)
        adding.join()
        assert not folder.exists()


def test_what_cannot_be_removed_is_named_and_the_command_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work" / "old"
    folder.mkdir(parents=True)

    def refused(leftover: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("crucible_lineage.cli.serve.remove", refused)
    ran = CliRunner().invoke(main, ["data", "clean", "--yes", "--data", str(tmp_path)])
    assert (ran.exit_code, ran.stderr) == (1, f"error: not removed: {folder}: Permission denied\n")
