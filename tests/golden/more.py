"""Steps with faulty declarations in faults.yaml."""

from pathlib import Path


def scale(counts: Path, *, factor: float, order: int = 1, out: Path) -> None:
    (out / "scaled.txt").write_text(f"{counts.read_text()} {factor} {order}")


def joined(rows: list[Path], *, title: str = "", out: Path) -> None:
    (out / "joined.txt").write_text(title.join(path.read_text() for path in rows))
