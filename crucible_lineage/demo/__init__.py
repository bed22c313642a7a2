"""The demo: a Raman calibration on three measured spectra that come with the package. What they are, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["INSTRUMENT", "MEASUREMENT", "PUBLISHED", "RAW_FILES", "RawFile", "data_folder"]

MEASUREMENT = "Raman Spectroscopy"
INSTRUMENT = "Horiba 633 nm Raman microscope (CHARISMA partner TOP)"
# When the files first appeared in public (ramanchada2, commit c5e8d91d). Not the time of acquisition: the files have
# no header, and nobody wrote down when they were measured. See data/README.md.
PUBLISHED = "2023-02-26T01:58:29+02:00"


@dataclass(frozen=True)
class RawFile:
    """One measured file. `timestamp` is the moment of acquisition, ISO 8601 with offset; None if it is not known."""

    role: str
    filename: str
    dataset_name: str
    sample_name: str
    timestamp: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return data_folder() / self.filename


def data_folder() -> Path:
    """The folder with the measured files."""
    return Path(__file__).parent / "data"


_SOURCE = {"source": "ramanchada2 1.5.0, datasets2/TOP_Ho633", "license": "MIT", "published": PUBLISHED}
_OPTICS = {"laser_nominal_nm": 633, "objective": "010"}

# Exposure and accumulations are read from the file names ("40sx5"); the source states only laser, maker and optics.
RAW_FILES = (
    RawFile("neon", "neon_new2_Z010.txt", "Neon lamp, 633 nm axis", "neon lamp", metadata={**_OPTICS, **_SOURCE}),
    RawFile(
        "silicon",
        "S0B_HLR633_Z010_100_40sx5.txt",
        "Silicon wafer S0B, 633 nm",
        "silicon wafer S0B",
        metadata={**_OPTICS, "laser_power_percent": 100, "exposure_s": 40, "accumulations": 5, **_SOURCE},
    ),
    RawFile(
        "polystyrene",
        "Pol_HLR633_Z010_100_15sx5.txt",
        "Polystyrene, 633 nm",
        "polystyrene",
        metadata={**_OPTICS, "laser_power_percent": 100, "exposure_s": 15, "accumulations": 5, **_SOURCE},
    ),
)
