"""The map of the package, in numbers and drawn: `python docs/map [REVISION ...] [--draw FILE]`.

Without a revision it is that of the code as it stands; with some, a column for each and one for the code as it stands.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import grimp
from measures import measured
from rooms import House, import_graph, installed_tree, read_house


def main() -> None:
    """Print the numbers as a table of Markdown; with `--draw` also write the picture."""
    parser = argparse.ArgumentParser(prog="python docs/map", description=__doc__)
    parser.add_argument("revisions", nargs="*", help="git revisions to compare with")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="write the map as SVG")
    asked = parser.parse_args()
    columns, house = [], None
    for revision in (*asked.revisions, None):
        with installed_tree(revision) as tree:
            graph: grimp.ImportGraph = import_graph(tree)
            house = read_house(graph)
            columns.append(measured(tree, graph))
    print("| | " + " | ".join([*(f"at {name}" for name in asked.revisions), "now"]) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for rows in zip(*columns, strict=True):
        print(f"| {rows[0][0]} | " + " | ".join(value for _, value in rows) + " |")
    if asked.draw and house:
        _draw(asked.draw, house)


def _draw(path: Path, house: House) -> None:
    from drawing import drawn  # after the graph was read: it imports the package

    path.write_text(drawn(house), encoding="utf-8")


if __name__ == "__main__":
    main()
