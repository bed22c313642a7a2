"""Upload and download of one large file by our client and by the official one. Prints tables of ratios."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from crucible_lineage.client import CrucibleClient

sys.path.append(str(Path(__file__).parents[1]))
from compare import Cost, alternated, compare, cost
from measure import arguments, embedded_crucible, heading

BLOCK_BYTES = 1 << 20


def main() -> None:
    given = arguments(size_mib=1024, rounds=2)
    print(heading())
    with tempfile.TemporaryDirectory() as name, embedded_crucible(Path(name) / "data") as place:
        path = Path(name) / "movie.h5"
        with path.open("wb") as file:
            file.writelines(os.urandom(BLOCK_BYTES) for _ in range(given.size_mib))
        holders: list[str] = []

        def uploaded(client: str) -> Cost:
            with CrucibleClient(place.url, place.api_key) as own:
                holders.append(own.datasets.create({"dataset_name": f"for {client}"}).dsid)
            return cost(client, "upload", place, path=str(path), dataset=holders[-1])

        size = path.stat().st_size
        compare(f"Upload of {given.size_mib} MiB", alternated(given.rounds, uploaded), size)
        downloaded = alternated(given.rounds, lambda client: cost(client, "download", place, dataset=holders[0]))
        compare(f"Download of {given.size_mib} MiB", downloaded, size)


if __name__ == "__main__":
    main()
