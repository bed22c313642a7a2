"""Which files a call has written, at the paths in its arguments."""

from __future__ import annotations

import os
from pathlib import Path

from crucible_lineage.checksums import stamp_if_present
from crucible_lineage.tasks.dropin.arguments import Arguments


def test_a_file_replaced_by_one_of_the_same_size_and_time_was_written(tmp_path: Path) -> None:
    old, other, new = (tmp_path / name for name in ("scan.txt", "other.txt", "new.txt"))
    for path, content in ((old, "1 2 3"), (other, "7 8 9"), (new, "4 5 6")):
        path.write_text(content)
        os.utime(path, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_000))
    before = {path: stamp_if_present(path) for path in (old, other)}
    arguments = Arguments(paths={"scan": old, "other": other}, before=before)
    new.replace(old)  # as a program does that copies with `cp -p` and renames
    assert arguments.changed_files() == {"scan": [old]}
