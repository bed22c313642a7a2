"""Results are made again from kept sources; verdicts are right, and causes are named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.bundle import write_bundle
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.remake.compare import DIFFERS, IDENTICAL, WITHIN
from crucible_lineage.remake.driver import EXCHANGED, FAILED, NOT_MADE, Options, Outcome
from crucible_lineage.remake.kit import _runtime
from crucible_lineage.remake.reproduce import code_to_show, reproduce, sampled
from crucible_lineage.session import Session
from tests.golden.stored import compare, normal
from tests.nights import by_night
from tests.runs import run

pytestmark = pytest.mark.usefixtures("keeping")
HERE = Options(here=True)
VALIDATORS = Path(__file__).parents[2] / ".venv" / "validators" / "bin"

STEPS = """
import json
import os
import random
from enum import Enum
from pathlib import Path

from crucible_lineage import Facts, step

SCALE = 3.0


class Mode(Enum):
    PLAIN = "plain"
    SQUARED = "squared"


def helper(value):
    return value * SCALE


@step
def scaled(counts: Path, *, mode: Mode = Mode.PLAIN, powers: tuple[int, ...] = (1, 2), facts: Facts, out: Path) -> dict:
    values = [helper(float(line)) for line in counts.read_text().split()]
    (out / "scaled.csv").write_text("value\\n" + "\\n".join(map(repr, values)))
    name = facts.one("counts").name
    return {"mean": sum(values) / len(values), "mode": mode.value, "of": name, "powers": list(powers)}


@step(outputs=("low", "high"))
def split(counts: Path, *, at: float = 4.0, low: Path, high: Path) -> dict:
    values = [float(line) for line in counts.read_text().split()[1:]]
    (low / "low.json").write_text(json.dumps([v for v in values if v < at]))
    (high / "high.json").write_text(json.dumps([v for v in values if v >= at]))
    return {"low": {"count": sum(v < at for v in values)}, "high": {"count": sum(v >= at for v in values)}}


@step
def joined(parts: dict[str, Path], *, out: Path) -> dict:
    (out / "all.json").write_text(json.dumps({name: json.loads(path.read_text()) for name, path in parts.items()}))
    return {"files": len(parts)}


@step
def by_threads(counts: Path, *, out: Path) -> dict:
    threads = float(os.environ.get("OMP_NUM_THREADS", "1"))
    (out / "sum.txt").write_text(repr(1.0 + threads * 1e-12))
    return {"sum": 1.0}


@step
def by_clock(counts: Path, *, out: Path) -> dict:
    (out / "when.txt").write_text(repr(random.random()))
    return {}


@step
def secret(counts: Path, *, token: str, out: Path) -> dict:
    (out / "x.txt").write_text("1")
    return {}
"""

PIPELINE = """
pipeline: remade
project: lab
inputs:
  first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
steps:
  scaled: {{uses: {0}:scaled, inputs: {{counts: first}}, params: {{mode: squared, powers: [3, 4]}}}}
  split: {{uses: {0}:split, inputs: {{counts: scaled}}}}
  joined: {{uses: {0}:joined, inputs: {{parts: [split.low, split.high]}}}}
  threads: {{uses: {0}:by_threads, inputs: {{counts: first}}}}
  clock: {{uses: {0}:by_clock, inputs: {{counts: first}}}}
  sorted:
    run: "{1} sorts.py {{inputs.first}} {{out}} {{params.reverse}}"
    inputs: {{first: first}}
    params: {{reverse: true}}
"""
SHELL = """
  shell:
    run: [sh, -c, "sort -r {inputs.first} | head -2 > {out}/s.txt"]
    inputs: {first: first}
  copied:
    run: [sh, -c, "cp {inputs.clock} {out}/copy.txt"]
    inputs: {clock: clock}
"""
SORTS = """
import sys
from pathlib import Path
lines = sorted(Path(sys.argv[1]).read_text().split(), reverse=sys.argv[3] == "true")
Path(sys.argv[2], "sorted.txt").write_text("\\n".join(lines))
Path(sys.argv[2], "metadata.json").write_text('{"lines": %d}' % len(lines))
"""


@pytest.fixture
def made(lab: Any, session: Session, monkeypatch: pytest.MonkeyPatch) -> RunResult:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lab.file(f"{lab.module}.py", STEPS)
    lab.file("sorts.py", SORTS)
    lab.declare(PIPELINE.format(lab.module, sys.executable) + SHELL)
    return run(session, lab.pipeline)


@pytest.fixture
def again(session: Session, made: RunResult, lab: Any) -> Callable[..., Outcome]:
    """Make the result of a step again in this environment, without the laboratory's code."""
    shutil.rmtree(lab.folder)

    def made_again(step: str, output: str = "out", options: Options = HERE) -> Outcome:
        return reproduce(session, [made.datasets[step][output]], options, lambda _: None)[0]

    return made_again


def test_results_are_made_again_though_the_code_is_gone(again: Callable[..., Outcome], made: RunResult) -> None:
    assert made.ok, made.errors
    for step, output in (
        ("scaled", "out"),
        ("split", "low"),
        ("split", "high"),
        ("joined", "out"),
        ("sorted", "out"),
        ("shell", "out"),
    ):
        found = again(step, output)
        assert (found.verdict, found.note, found.causes) == (IDENTICAL, "", []), (step, found)
    names = {file["name"] for file in again("scaled").files}
    assert names == {"scaled.csv", "returned values"}, "what was printed does not count"


def test_all_are_made_from_the_measured_files_on(session: Session, made: RunResult) -> None:
    ids = [made.datasets[step]["out"] for step in ("joined", "clock", "copied")]
    found = {load.name: load for load in reproduce(session, ids, Options(here=True, is_all=True), lambda _: None)}
    assert {name: load.verdict for name, load in found.items()} == {
        **dict.fromkeys(("scaled", "split", "joined"), IDENTICAL), **dict.fromkeys(("clock", "copied"), DIFFERS)
    }  # fmt: skip
    assert found["copied"].causes == [f"when.txt of {ids[1]}, its input clock, {EXCHANGED}"]


def test_causes_of_differences_are_named(
    again: Callable[..., Outcome], made: RunResult, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    found = again("threads")
    assert found.verdict == WITHIN
    strict = again("threads", options=Options(here=True, rtol=1e-15))
    assert strict.verdict == DIFFERS
    assert strict.causes == ["OMP_NUM_THREADS is 4 here, 1 by the record"]
    assert "line 1, number 1: 1.000000000001 is recorded, 1.000000000004 was made" in strict.files[0]["said"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ids = [made.datasets[step]["out"] for step in ("clock", "copied")]
    clock, copied = reproduce(session, ids, HERE, lambda _: None)
    assert (clock.verdict, copied.verdict) == (DIFFERS, IDENTICAL), "each step gets its recorded input"
    assert clock.causes[0] == "the step is not deterministic: made twice here, when.txt differs too"


def test_what_cannot_be_made_again_says_why(lab: Any, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.file(f"{lab.module}.py", STEPS.replace("@step\ndef secret", '@step(secrets=["token"])\ndef secret'))
    lab.declare(
        f"pipeline: odd\nproject: lab\ninputs:\n  first: {{file: first.txt}}\nsteps:\n"
        f"  secret: {{uses: {lab.module}:secret, inputs: {{counts: first}}, params: {{token: abc}}}}\n"
    )

    def run() -> RunResult:
        bound = bind_file(lab.pipeline, session.store)
        return plan_and_run(bound, session, lambda: LocalEngine(session, 1), lambda _: None)

    first = run()
    (found,) = reproduce(session, [first.datasets["secret"]["out"]], HERE, lambda _: None)
    assert (found.verdict, found.note) == (NOT_MADE, "its parameter token is secret, and was not kept")
    with pytest.raises(InputError, match="was not made by a step that is recorded"):
        reproduce(session, list(first.inputs["first"]), HERE, lambda _: None)
    monkeypatch.setenv("CRUCIBLE_LINEAGE_KEEP", "no")
    lab.declare(lab.pipeline.read_text().replace(":secret,", ":by_clock,").replace(", params: {token: abc}", ""))
    (found,) = reproduce(session, [run().datasets["secret"]["out"]], HERE, lambda _: None)
    assert (found.verdict, found.note) == (NOT_MADE, "its source was not kept when it was made")


@pytest.fixture
def bundle(session: Session, made: RunResult, tmp_path: Path) -> Path:
    target = tmp_path / "joined.zip"
    write_bundle(session, made.datasets["joined"]["out"], target)
    folder = tmp_path / "elsewhere"
    with zipfile.ZipFile(target) as archive:
        archive.extractall(folder)
    return folder


def test_a_bundle_is_made_again_by_its_own_script(bundle: Path, tmp_path: Path) -> None:
    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(bundle / "reproduce.py"), *arguments]
        (tmp_path / "empty").mkdir(exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "empty")}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path / "empty", env=environment, check=False
        )

    done = script("--here", "--all", "--json")
    assert done.returncode == 0, done.stderr
    assert [load["verdict"] for load in json.loads(done.stdout)] == [IDENTICAL] * 3
    checked = subprocess.run(["sha256sum", "-c", "manifest-sha256.txt"], cwd=bundle, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("builder", ["uv", pytest.param("pip", marks=by_night("the same by a slower builder"))])
def test_a_bundle_is_made_again_by_a_python_that_has_nothing(
    bundle: Path, made: RunResult, other_python: str, tmp_path: Path, builder: str
) -> None:
    """With uv by a Python of another version; without, by one of the recorded version, in an environment of its own."""
    programs = tmp_path / "programs"
    programs.mkdir()
    python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    if builder == "uv":
        (programs / "uv").symlink_to(VALIDATORS / "uv")
        (programs / f"python{sys.version_info[0]}.{sys.version_info[1]}").symlink_to(python)
    asked = [other_python, "-c", "import sys; print(sys._base_executable)"]  # no shim, which needs a shell
    other = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    command = [other if builder == "uv" else str(python), "-I", str(bundle / "reproduce.py")]
    done = subprocess.run(
        [*command, made.datasets["split"]["low"], "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": str(programs), "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["verdict"], found["environment"]["packages"]["numpy"]) == (IDENTICAL, None)
    assert found["environment"]["python"].rpartition(".")[0] == f"{sys.version_info[0]}.{sys.version_info[1]}"


def altered(bundle: Path, path: str, change: Callable[[str], str]) -> None:
    """Change a file of the source archive."""
    (kept,) = (bundle / "remake" / "source").glob("*.zip")
    with zipfile.ZipFile(kept) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    with zipfile.ZipFile(kept, "w") as archive:
        for name, text in texts.items():
            changed = change(text) if name.endswith(path) else text
            archive.writestr(name, changed)
            assert not name.endswith(path) or changed != text


def test_what_a_bundle_would_run_is_shown_and_what_is_exchanged_in_it_is_named(
    bundle: Path, lab: Any, made: RunResult, session: Session
) -> None:
    """By the installed program, which then runs nothing; the one in the bundle names them as its verdict."""
    (raw,), joined = made.inputs["first"], made.datasets["joined"]["out"]
    ids = {
        raw: "first",
        **{mfid: f"{step}.{name}" for step, made_ in made.datasets.items() for name, mfid in made_.items()},
    }
    shown = [
        text.replace(STEPS, "STEPS") for text in (*code_to_show(session, bundle), *code_to_show(session, [joined]))
    ]
    plan = json.dumps(json.loads((bundle / "remake" / "plan.json").read_text()), indent=1, sort_keys=True)
    said = [plan, *sorted(normal(text, ids, bundle) for text in shown)]

    def refused(asked: Path | list[str]) -> None:
        with pytest.raises(InputError) as error:
            reproduce(session, asked, HERE, lambda _: None)
        said.append(f"InputError: {error.value}")

    def changed(change: Callable[[Path], object]) -> None:
        copy = bundle.with_name("changed")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(bundle, copy)
        change(copy)
        refused(copy)

    def rewritten(copy: Path, old: str, new: str) -> None:
        path = copy / "records" / f"{joined}.json"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.write_text(path.read_text().replace(old, new, 1))
        listed = (copy / "manifest-sha256.txt").read_text()
        (copy / "manifest-sha256.txt").write_text(listed.replace(digest, hashlib.sha256(path.read_bytes()).hexdigest()))

    (kept,) = (bundle / "remake" / "source").glob("*.zip")
    change = lambda text: text.replace("SCALE = 3.0", "SCALE = 3.1")  # noqa: E731
    changed(lambda it: altered(it, f"{lab.module}.py", change))
    changed(lambda it: (it / "data" / raw / "first.txt").write_text("9\n"))
    changed(lambda it: (it / "remake" / "source" / kept.name).write_bytes(b"no archive"))
    changed(lambda it: (it / "manifest-sha256.txt").unlink())
    changed(lambda it: (it / "remake" / "plan.json").write_text("{}"))
    changed(lambda it: rewritten(it, '"params": {}', '"params": {"n": 1}'))
    changed(lambda it: rewritten(it, '"step": "joined"', '"step": "other"'))
    refused([raw])
    refused(["0td40y80027sn1w6x3snqzzzzz"])
    session.ensure_project("empty")
    with pytest.raises(InputError, match="reproduce: project 'empty' has no current result of a step"):
        sampled(session, "empty", 2)
    compare("remake/bundle.txt", normal("\n".join(said).replace(lab.module, "LAB"), ids, bundle.parent))


def wheel(folder: Path, version: str, factor: float) -> None:
    """Write a wheel of the package labtools, and nothing else."""
    info = f"labtools-{version}.dist-info"
    files = {
        "labtools.py": f"def scale(value):\n    return value * {factor!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: labtools\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"labtools-{version}-py3-none-any.whl", "w") as archive:
        for name, text in (*files.items(), (f"{info}/RECORD", record)):
            archive.writestr(name, text)


def installed(wheels: Path, version: str, folder: Path) -> Path:
    with zipfile.ZipFile(wheels / f"labtools-{version}-py3-none-any.whl") as archive:
        archive.extractall(folder)
    return folder


def test_the_recorded_versions_are_installed_and_others_are_named_as_the_cause(
    lab: Any, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheel(wheels, "1.0", 2.0)
    wheel(wheels, "2.0", 2.5)
    monkeypatch.syspath_prepend(str(installed(wheels, "1.0", tmp_path / "site-packages")))
    lab.file(
        f"{lab.module}.py",
        "from pathlib import Path\nimport labtools\n\n\ndef scaled(counts: Path, *, out: Path):\n"
        "    (out / 'x.txt').write_text(repr(labtools.scale(1.1)))\n",
    )
    lab.declare(
        f"pipeline: odd\nproject: lab\ninputs:\n  first: {{file: first.txt}}\nsteps:\n"
        f"  scaled: {{uses: {lab.module}:scaled, inputs: {{counts: first}}}}\n"
    )
    from crucible_lineage.provenance import environment

    environment._distributions.cache_clear()
    environment._has_distributions.cache_clear()
    done = plan_and_run(
        bind_file(lab.pipeline, session.store), session, lambda: LocalEngine(session, 1), lambda _: None
    )
    mfid = done.datasets["scaled"]["out"]
    shutil.rmtree(tmp_path / "site-packages")
    for builder in ("UV", "PIP"):
        monkeypatch.setenv(f"{builder}_FIND_LINKS", str(wheels))
        monkeypatch.setenv(f"{builder}_NO_INDEX", "1")
    built = Options(environments=tmp_path / "environments")
    (found,) = reproduce(session, [mfid], built, lambda _: None)
    assert (found.verdict, found.environment["packages"]["labtools"]) == (IDENTICAL, "1.0"), found
    monkeypatch.setenv("PYTHONPATH", str(installed(wheels, "2.0", tmp_path / "newer")))
    monkeypatch.setattr("crucible_lineage.remake.confine.PASSED", ("PATH", "PYTHONPATH"))
    (found,) = reproduce(session, [mfid], HERE, lambda _: None)
    assert found.verdict == DIFFERS
    assert found.causes[0] == "labtools is 2.0 here, 1.0 by the record"
    assert FAILED not in found.verdict


def test_a_kit_can_save_returned_figures_with_nothing_installed(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime.zip"
    runtime.write_bytes(_runtime())
    path = f"import sys; sys.path.insert(0, {str(runtime)!r})"
    code = f"{path}; from crucible_lineage.machine.pictures import draw_returned"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
