"""Steps that a person calls, and not a pipeline: `python by_hand.py DATA`."""

import sys
from pathlib import Path

import peaks

import crucible_lineage as cl
from crucible_lineage import step


@step
def in_a_script(scan: Path, *, out: Path) -> dict:
    """Count the characters of a scan."""
    (out / "characters.txt").write_text(str(len(scan.read_text())))
    return {}


with cl.registering("lab", catalogue=cl.connect(sys.argv[1])):
    print("smoothed", peaks.smoothed(Path("scan-b.csv")).mfid)
    print("lots", peaks.drawn_lots(Path("scan-b.csv"), seed=3).mfid)
    print("in a script", in_a_script(Path("scan-b.csv")).mfid)
