"""Pictures, and a folder of files as a result."""

from pathlib import Path

from PIL import Image
from prefect import flow, task


@task
def picture(size: int) -> Image.Image:
    image = Image.new("L", (size, size))
    image.putdata([value % 256 for value in range(size * size)])
    return image


@task
def thumbnails(image: Image.Image, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for size in (8, 16):
        image.resize((size, size)).save(folder / f"{size}.png")
    return folder


@task
def count_files(folder: Path) -> int:
    return len(list(folder.iterdir()))


@flow
def pictures(folder: Path):
    return count_files(thumbnails(picture(32), folder))


def main(folder: Path):
    return pictures(folder / "small")


RETURNED = "2"
EDGES = ["picture -> thumbnails", "thumbnails -> count_files"]
