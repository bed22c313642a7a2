"""Which files a call has written, at the paths in its arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.machine.checksums import stamp_if_present
from crucible_lineage.machine.opened import OpenedFiles, watch_files, watching
from crucible_lineage.tasks.arguments import Arguments
from crucible_lineage.tasks.dataset import files_written

recording: Any = None  # of no use where only files are compared


def test_a_file_replaced_by_one_of_the_same_size_and_time_was_written(tmp_path: Path) -> None:
    old, other, new = (tmp_path / name for name in ("scan.txt", "other.txt", "new.txt"))
    for path, content in ((old, "1 2 3"), (other, "7 8 9"), (new, "4 5 6")):
        path.write_text(content)
        os.utime(path, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_000))
    before = {path: stamp_if_present(path) for path in (old, other)}
    arguments = Arguments(recording, "copy", paths={"scan": old, "other": other}, before=before)
    new.replace(old)  # as a program does that copies with `cp -p` and renames
    assert arguments.changed_files() == {"scan": [old]}


def test_a_secret_in_a_file_is_the_concern_of_the_call_that_wrote_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch_files()
    fit, login, keys = (tmp_path / name for name in ("fit.txt", "login.txt", "keys.pem"))
    calls = {}
    for path, content in ((fit, "1 2 3"), (login, "https://me:secret@host/"), (keys, "a certificate")):
        calls[path.stem] = OpenedFiles((tmp_path,))
        with watching(calls[path.stem]):
            path.write_text(content)

    def written(task: str) -> dict[str, list[Path]]:
        changed = Arguments(recording, task, paths={"folder": tmp_path}).changed_files()
        return files_written(task, changed, calls[task], ())

    assert written("fit") == {"folder": [fit]}
    assert caplog.messages == []
    assert written("login") == written("keys") == {}
    left_out = (("login.txt", "login"), ("keys.pem", "keys"))
    assert caplog.messages == [
        f"{name} is left out of the result of {task}: it holds keys or a secret" for name, task in left_out
    ]
