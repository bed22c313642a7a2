"""Folders of work are removed whole."""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import count
from pathlib import Path

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
