"""An offset, which lies in a file beside this one that nothing names."""

from pathlib import Path

OFFSET = float((Path(__file__).parent / "offset.dat").read_text())
