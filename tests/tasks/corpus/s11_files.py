"""Files in, files out, by path."""

from pathlib import Path

from prefect import flow, task


@task
def smooth(spectrum: Path, out: Path, width: int = 3) -> Path:
    values = [float(line) for line in spectrum.read_text().split()]
    target = out / "smooth.txt"
    target.write_text("\n".join(str(sum(values[i : i + width]) / width) for i in range(len(values) - width + 1)))
    return target


@task
def compare(smoothed: Path, spectrum: Path) -> int:
    return len(smoothed.read_text().split()) - len(spectrum.read_text().split())


@flow
def in_files(spectrum: Path, out: Path):
    return compare(smooth(spectrum, out), spectrum)


def main(folder: Path):
    raw = folder / "raw.txt"
    raw.write_text("1\n2\n6\n3\n")
    (folder / "out").mkdir(exist_ok=True)
    return in_files(raw, folder / "out")


RETURNED = "-2"
EDGES = ["raw.txt -> smooth", "smooth -> compare", "raw.txt -> compare"]
