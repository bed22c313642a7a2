"""A project with two instruments, a sample, a calibration and fits that use it, made once for all tests here."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run

STEPS = '''
"""Steps of the tests."""

import base64
import json
from pathlib import Path

from crucible_lineage import step

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@step
def calibrate(neon: Path, *, degree: int = 3, out: Path) -> dict:
    (out / "axis.json").write_text(json.dumps([degree, neon.read_text()]))
    return {"rms_cm1": 0.5 / degree, "lines": [1, 2]}


@step(measurement="fitting", thumbnail="*.png")
def fit(spectrum: Path, axis: Path, *, threshold: float = 1.0, out: Path) -> dict:
    value = float(spectrum.read_text())
    (out / "fit.csv").write_text(f"peak,{value}")
    (out / "curve.txt").write_text(f"{value}{axis.read_text()}")
    (out / "fit.png").write_bytes(base64.b64decode(PIXEL))
    return {"peak_nm": value, "shape": {"width": value / 10, "kind": "gauss" if value > 3 else None}}
'''

PIPELINE = """
pipeline: fits
project: spectra
inputs:
  neon: {file: neon.txt, measurement: lamp, timestamp: "2024-05-01T12:00:00Z"}
  spectrum: {file: "raw/*.txt", each: true, measurement: Raman, keywords: [powder], timestamp: "2024-05-02T12:00:00Z"}
steps:
  axis: {uses: MODULE:calibrate, inputs: {neon: neon}, params: {degree: 2}}
  fitted: {uses: MODULE:fit, inputs: {spectrum: spectrum, axis: axis}}
"""


class Project:
    """The data folder in which the pipeline ran; commands run on it with `ask`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.pipeline = folder / "pipeline.yaml"
        self.runs: list[RunResult] = []

    def run(self, **overrides: Any) -> RunResult:
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with Session(Settings(self.data)) as session:
                ran = run(session, self.pipeline, **overrides)
        finally:
            os.chdir(before)
        assert ran.ok, ran.errors
        self.runs.append(ran)
        return ran

    def ask(self, *words: object, code: int = 0) -> Result:
        ran = CliRunner().invoke(main, [*map(str, words), "--data", str(self.data)])
        assert ran.exit_code == code, ran.output
        return ran

    def ask_json(self, *words: object) -> Any:
        return json.loads(self.ask(*words, "--json").stdout)

    def fitted(self, name: str, run: int = -1) -> str:
        """Return the MFID of the fit of a spectrum in one of the runs."""
        return self.runs[run].datasets[f"fitted[{name}]"]["out"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run with degree 2 and then 3: the first fits are superseded. `weak` and `strong` are of two instruments."""
    project = Project(tmp_path_factory.mktemp("catalogue"))
    module = f"steps_{abs(hash(project.folder))}"
    (project.folder / f"{module}.py").write_text(STEPS)
    project.pipeline.write_text(textwrap.dedent(PIPELINE).replace("MODULE", module))
    (project.folder / "neon.txt").write_text("585.2")
    (project.folder / "raw").mkdir()
    for name, value in {"weak-1": 1.5, "weak-2": 2.5, "strong-1": 10.25, "strong-2": 11.75}.items():
        (project.folder / "raw" / f"{name}.txt").write_text(str(value))
    project.run()
    project.run(**{"axis.degree": 3})
    with Session(Settings(project.data)) as session:
        client = session.client
        for slug in ("horiba", "renishaw"):
            client.instruments.create(instrument_id=slug, instrument_name=slug.title(), location="lab")
        sample = client.samples.create({"sample_name": "polystyrene", "project_id": "spectra"}).unique_id
        for mfid in project.runs[0].inputs["spectrum"]:
            name = client.datasets.get(mfid).dataset_name or ""
            client.datasets.assign_instrument(mfid, "horiba" if name.startswith("weak") else "renishaw")
            client.metadata.merge(mfid, {"power_mW": 5 if name.startswith("weak") else 50})
            if name.startswith("strong"):
                client.datasets.add_sample(mfid, sample)
    return project
