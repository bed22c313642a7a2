"""Results that are let go again and again, while processes are killed: every recorded hash comes back.

A history by a seed: runs with new parameters, results made again, `evict` and `get`, killed at a random write or
removal, one alone or two at once. After each step nothing is gone that was not stated to go, nor anything that cannot
be made again.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import by_night

WANTED, EACH, IN_A_ROUND = 200, 8, 6
SEED = 30
KILLED = Path(__file__).with_name("killed.py")

STEPS = """
import random
from pathlib import Path

from crucible_lineage import step


@step
def scaled(scan: Path, *, factor: float, out: Path) -> dict:
    values = [float(line) * factor for line in scan.read_text().split()]
    (out / "scaled.txt").write_text("\\n".join(map(repr, values * 40)))
    (out / "few.txt").write_text(repr(values))
    return {"factor": factor}


@step
def squared(scaled: Path, *, out: Path) -> dict:
    (out / "squared.txt").write_text("\\n".join(repr(float(one) ** 2) for one in scaled.read_text()[1:-1].split(",")))
    return {}


@step
def noisy(scan: Path, *, factor: float, out: Path) -> dict:
    (out / "noisy.txt").write_text(repr([random.random() * factor for _ in range(100)]))
    return {}


@step
def kept(scan: Path, *, factor: float, out: Path) -> dict:
    (out / "kept.txt").write_text("\\n".join([repr(factor)] * 100))
    return {}
"""
PIPELINE = """
pipeline: evicted
project: lab
params: {factor: 1}
inputs:
  scan: {file: "scan-*.txt", each: true, timestamp: "2024-05-01T12:00:00Z"}
  one: {file: scan-0.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "evicting_steps:scaled", inputs: {scan: scan}, params: {factor: "${params.factor}"}}
  squared: {uses: "evicting_steps:squared", inputs: {scaled: {from: scaled, files: few.txt}}}
  noisy: {uses: "evicting_steps:noisy", inputs: {scan: one}, params: {factor: "${params.factor}"}}
  kept: {uses: "evicting_steps:kept", inputs: {scan: one}, params: {factor: "${params.factor}"}, keep: forever}
"""


@dataclass
class History:
    """A data folder, its expected content, and the amount evicted."""

    judging: Any
    folder: Path
    chance: random.Random
    evictable: dict[str, set[str]] = field(default_factory=dict)  # by result, the hashes of its files
    staying: dict[str, set[str]] = field(default_factory=dict)
    evictions: int = 0
    kills: int = 0
    writes: dict[str, int] = field(default_factory=dict)  # by command, as counted when it ran to its end
    factor: int = 1

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def command(self, *arguments: object, at: int = 0) -> subprocess.Popen[bytes]:
        counted = self.folder / f"counted-{arguments[0]}"
        command = [sys.executable, KILLED, str(at), counted, *map(str, arguments), "--data", self.data]
        variables = self.judging.environment(CRUCIBLE_LINEAGE_KEEP="yes")
        with (self.folder / "output.txt").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=variables, stdout=log, stderr=log)

    def end(self, process: subprocess.Popen[bytes], name: str) -> None:
        code = process.wait(300)
        self.kills += code == -signal.SIGKILL
        assert code in (0, 1, -signal.SIGKILL), (self.folder / "output.txt").read_text()[-3000:]
        if code != -signal.SIGKILL:
            self.writes[name] = int((self.folder / f"counted-{name}").read_text())

    def make(self) -> None:
        """Make new results, all of them a second time, too."""
        self.factor += 1
        run = ("run", self.folder / "pipeline.yaml", "--set", f"factor={self.factor}", "--engine", "local", "--data")
        ran = self.judging.crucible(*run, self.data, cwd=self.folder, CRUCIBLE_LINEAGE_KEEP="yes")
        assert ran["errors"] == {}
        new = {step: outputs["out"] for step, outputs in ran["datasets"].items()}
        self.judging.crucible("reproduce", *new.values(), "--here", "--data", self.data, cwd=self.folder, codes=(0, 1))
        with Session(Settings(self.data)) as session:
            for step, mfid in new.items():
                record = session.client.metadata.get(mfid)["crucible_lineage"]
                into = self.staying if step in ("noisy", "kept") else self.evictable
                into[mfid] = {file["sha256"] for file in record["generated"] if not file.get("log")}
            for name in (name for names in ran["inputs"].values() for name in names):
                self.staying[name] = {str(file.sha256_hash) for file in session.client.files.list(name)}

    def there(self, mfid: str) -> bool:
        return all(self.content(sha256).exists() for sha256 in self.evictable[mfid])

    def content(self, sha256: str) -> Path:
        return self.data / "crucible" / "contents" / sha256[:2] / sha256[2:]

    def disturb(self) -> None:
        """Evict or get, one or two processes at once, each possibly killed at a random moment."""
        before = {mfid for mfid in self.evictable if self.there(mfid)}
        jobs = [self.one() for _ in range(self.chance.choice((1, 1, 2)))]
        for process, name in jobs:
            self.end(process, name)
        self.evictions += sum(not self.there(mfid) for mfid in before)
        self.verify()

    def one(self) -> tuple[subprocess.Popen[bytes], str]:
        away = sorted(mfid for mfid in self.evictable if not self.there(mfid))
        name = self.chance.choice(("evict", "evict", "get")) if away else "evict"
        at = self.chance.choice((0, self.chance.randint(1, self.writes.get(name, 17))))
        if name == "evict":
            size = self.chance.choice(("1GB", "1B", "20kB"))
            return self.command("evict", "--to-free", size, "--trust-own", at=at), name
        chosen = self.chance.sample(away, min(len(away), self.chance.randint(1, EACH)))
        target = self.folder / f"got-{self.chance.random()}"
        return self.command("get", *chosen, "-o", target, at=at), name

    def verify(self) -> None:
        """Assert that nothing is missing without a stated eviction, and that everything present is intact."""
        for mfid, hashes in self.staying.items():
            assert all(self.is_whole(sha256) for sha256 in hashes), mfid
        with Session(Settings(self.data)) as session:
            stated = session.stated.evicted()
        for mfid, hashes in self.evictable.items():
            for sha256 in hashes:
                assert sha256 in stated.get(mfid, ()) if not self.content(sha256).exists() else self.is_whole(sha256)

    def is_whole(self, sha256: str) -> bool:
        path = self.content(sha256)
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


@pytest.fixture
def history(judging: Any, tmp_path: Path) -> History:
    for number in range(EACH):
        (tmp_path / f"scan-{number}.txt").write_text("".join(f"{number + line / 7!r}\n" for line in range(60)))
    (tmp_path / "evicting_steps.py").write_text(STEPS)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    return History(judging, tmp_path, random.Random(SEED))


@by_night("a history of evictions; single ones by day")
@pytest.mark.timeout(3600)
def test_every_recorded_hash_comes_back(history: History) -> None:
    while history.evictions < WANTED:
        history.make()
        for _ in range(IN_A_ROUND):
            history.disturb()
    while not history.kills:
        history.disturb()
    history.end(history.command("evict", "--to-free", "1GB", "--trust-own"), "evict")
    history.verify()
    shutil.rmtree(history.data / "cache", ignore_errors=True)
    got = history.folder / "everything"
    history.end(history.command("get", *history.evictable, *history.staying, "-o", got), "get")
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in got.rglob("*") if path.is_file()}
    wanted = {sha256 for hashes in (*history.evictable.values(), *history.staying.values()) for sha256 in hashes}
    assert wanted <= found, (history.folder / "output.txt").read_text()[-3000:]
    print(f"{history.evictions} evictions, {history.kills} kills, {len(history.evictable)} results")
