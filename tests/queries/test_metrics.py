"""Metrics of a data folder, as Prometheus reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ALERTS = Path(__file__).parents[2] / "deployments" / "prometheus-alerts.yaml"
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+]+)')


def samples(text: str) -> dict[tuple[str, str], float]:
    """Parse the text as Prometheus does. Every line must be valid, and types come before samples."""
    found, typed = {}, set[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            typed |= {line.split()[2]} if line.startswith("# TYPE") else set()
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] in typed
        found[match[1], match[2] or ""] = float(match[3])
    return found


@pytest.mark.usefixtures("keeping")  # source and environment of a step are no results
def test_runs_results_failures_and_waiting_results_are_counted(lab: Any, data: Path, command: Any) -> None:
    assert command("run", lab.pipeline, "--data", data, "--engine", "local").returncode == 0
    text = lab.pipeline.read_text().replace(f"{lab.module}:scale", f"{lab.module}:fail")
    lab.declare(text.replace("    params: {factor: 3}\n", ""))
    assert command("run", lab.pipeline, "--data", data, "--engine", "local").returncode == 1
    found = samples(command("status", "--data", data, "--metrics").stdout)
    (of_lab,) = {labels.rpartition(",")[0] for name, labels in found if name.endswith("runs_total")}
    assert found["crucible_lineage_runs_total", f'{of_lab},outcome="complete"'] == 1
    assert found["crucible_lineage_runs_total", f'{of_lab},outcome="failed"'] == 1
    there = (f'project="lab",state="{state}"' for state in ("delivered", "ingested"))
    assert sum(found.get(("crucible_lineage_results_total", labels), 0) for labels in there) == 2
    assert found["crucible_lineage_failed_results", ""] == 1
    assert found["crucible_lineage_waiting_results", ""] == 0
    assert found["crucible_lineage_disk_bytes", 'part="crucible"'] > 0


def test_each_alert_uses_existing_metrics(lab: Any, data: Path, command: Any) -> None:
    assert command("run", lab.pipeline, "--data", data, "--engine", "local").returncode == 0
    printed = command("status", "--data", data, "--metrics").stdout
    names = {line.split()[2] for line in printed.splitlines() if line.startswith("# TYPE")}
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]:
        used = set(re.findall(r"crucible_lineage_[a-z_]+", rule["expr"]))
        assert used, rule
        assert used <= names, rule
        assert rule["annotations"]["summary"]
