"""Files, checksums, disks, pictures and threads of this machine, as the examples in the text beside this file say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.golden.stored import run_examples


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less of open files")
def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("machine.txt"))
