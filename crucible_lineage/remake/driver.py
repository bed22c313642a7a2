"""Make results again from what is kept with them, and compare. Python 3.9 or newer; `uv`, or `venv` and `pip`.

    python reproduce.py [MFID ...] [--all] [--here] [--rtol 1e-9] [--wheels FOLDER]

Without an MFID it is the result that the bundle is about; `--all` makes all steps again, from the measured files on.
Each step gets its recorded source, parameters and inputs, in an environment of the recorded versions that is built for
it; with `--here` in that of this Python. What is made is compared file by file and number by number, and goes into a
folder of its own: nothing of the bundle is changed. Exit code 0: all is the same, within the tolerance; 1: something
differs or could not be made; 2: there is nothing to make again.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "crucible-lineage/remake/1"
PLAN, RUNTIME, RUNNER, COMPARER = "remake/plan.json", "remake/runtime.zip", "remake/run_step.py", "remake/compare.py"
IDENTICAL, WITHIN, ALIKE, DIFFERS = "identical", "numbers within tolerance", "picture alike", "differs"
FAILED, NOT_MADE = "failed", "not made again"
NOT_DETERMINISTIC = "the step is not deterministic"
EXCHANGED = "was made again with other bytes"  # an input
GOOD = (IDENTICAL, WITHIN, ALIKE)
ORDER = (IDENTICAL, WITHIN, ALIKE, "not recorded", "not made", DIFFERS)
MOST_FILES = 8  # chosen: that differ, named for a step
MOST_LINES, MOST_SAID = 2, 160  # chosen: lines that it printed, and characters of each
MOST_FOLLOW = 8  # chosen: results that were made from one that differs
PASSED = ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "UV_CACHE_DIR", "SSL_CERT_FILE")

Entry = dict[str, Any]
Tell = Callable[[str], None]


class RemakeError(Exception):
    """A step cannot be made again; the message says why."""


@dataclass(frozen=True)
class Options:
    """How it is done: in this Python's environment, with which tolerance, with wheels from which folder."""

    here: bool = False
    rtol: float | None = None
    wheels: Path | None = None
    environments: Path | None = None
    is_all: bool = False


@dataclass
class Outcome:
    """What became of a step: the verdict, that on each file, and what may be the cause of a difference.

    `follows` are results that were made from one that differs.
    """

    name: str
    mfids: list[str]
    verdict: str
    said: str = ""
    files: list[dict[str, Any]] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    follows: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    recorded: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def is_tried(self) -> bool:
        """Whether the step was run."""
        return self.verdict != NOT_MADE

    @property
    def is_good(self) -> bool:
        """Whether it gave the same, within the tolerance."""
        return self.verdict in GOOD

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        kept = {key: value for key, value in self.environment.items() if key != "variables"}
        return {key: value for key, value in vars(self).items() if key != "recorded"} | {"environment": kept}

    def lines(self) -> Iterator[str]:
        """Yield what people read."""
        files = [one for one in self.files if one["verdict"] not in ("not compared",)]
        same = sum(one["verdict"] == IDENTICAL for one in files)
        counted = f": {same} of {len(files)} identical" if files else ""
        yield f"{self.name}  {', '.join(self.mfids)}  {self.verdict}{counted}" + (f": {self.said}" if self.said else "")
        for one in [one for one in files if one["verdict"] != IDENTICAL or one["said"]][:MOST_FILES]:
            yield f"    {one['name']}: {one['verdict']}" + (f": {one['said']}" if one["said"] else "")
        for cause in self.causes:
            yield f"    why: {cause}"
        if self.follows:
            what = "1 result was" if len(self.follows) == 1 else f"{len(self.follows)} results were"
            yield f"    what follows: {what} made from it:"
        for one in self.follows[:MOST_FOLLOW]:
            yield f"      {one['mfid'] or '(not visible to you)'}  {one['name']}"
        if len(self.follows) > MOST_FOLLOW:
            yield f"      and {len(self.follows) - MOST_FOLLOW} more; see crucible-lineage impact {self.mfids[0]}"


def remake(kit: Path, wanted: Sequence[str], options: Options, work: Path, tell: Tell) -> list[Outcome]:
    """Make these results again, or all steps; `kit` is the folder with plan and files, `work` is written into."""
    plan = json.loads((kit / PLAN).read_text(encoding="utf-8"))
    if plan.get("format") != FORMAT:
        raise RemakeError(f"{PLAN} has the format {plan.get('format')!r}, this program reads {FORMAT}")
    chosen = [one for one in plan["steps"] if options.is_all or set(wanted) & {*_mfids(one)}]
    made: dict[tuple[str, str], Path] = {}
    found = []
    for number, entry in enumerate(chosen, 1):
        tell(f"{entry['name']}: making it again")
        parents = made if options.is_all else {}  # else each gets what it was given then
        outcome = _Remaking(kit, entry, options, work / f"{number:03}", tell).outcome(parents)
        if outcome.verdict == DIFFERS:
            outcome.follows = _made_from(plan["steps"], outcome.mfids)
        found.append(outcome)
    return found


def _made_from(entries: Sequence[Entry], mfids: Iterable[str]) -> list[dict[str, Any]]:
    """Return the results among those that are here which were made from one of these."""
    affected, found = {*mfids}, []
    for entry in entries:  # parents come first
        if affected & {used["mfid"] for used in entry["inputs"]} and not affected & {*_mfids(entry)}:
            affected |= {*_mfids(entry)}
            found += [{"mfid": mfid, "name": entry["name"]} for mfid in _mfids(entry)]
    return found


def _mfids(entry: Entry) -> list[str]:
    return [one["mfid"] for one in entry["outputs"].values()]


class _Remaking:
    """One step that is made again."""

    def __init__(self, kit: Path, entry: Entry, options: Options, work: Path, tell: Tell) -> None:
        self.kit = kit
        self.entry = entry
        self.options = options
        self.work = work
        self.tell = tell
        self.recorded = self._recorded_environment()
        self.pins: dict[str, str] = {}

    def outcome(self, made: dict[tuple[str, str], Path]) -> Outcome:
        began = time.monotonic()
        outcome = Outcome(self.entry["name"], _mfids(self.entry), NOT_MADE)
        outcome.recorded = {one["mfid"]: one["files"] for one in self.entry["outputs"].values()}
        try:
            if self.entry["why_not"]:
                raise RemakeError(self.entry["why_not"])
            self.work.mkdir(parents=True)
            inputs, replaced = self._inputs(made)
            source = self._source()
            python = Path(sys.executable) if self.options.here else self._environment()
            answer, folders, python = self._run(python, source, inputs, self.work / "made")
            outcome.environment = answer["environment"]
            if "error" in answer:
                outcome.verdict, outcome.said = FAILED, answer["error"]
                outcome.causes = list(self._causes(answer, folders))
                return outcome
            outcome.files = self._compared(python, folders, answer)
            outcome.verdict = max((one["verdict"] for one in outcome.files), key=ORDER.index, default=IDENTICAL)
            outcome.verdict = DIFFERS if outcome.verdict in ORDER[3:] else outcome.verdict
            for output, one in self.entry["outputs"].items():
                made |= {(one["mfid"], path.name): path for path in folders[output].rglob("*") if path.is_file()}
            if outcome.verdict != IDENTICAL:
                outcome.causes = [*replaced, *self._causes(answer, folders)]
            if not outcome.is_good:
                bad = {one["name"] for one in outcome.files if one["verdict"] not in GOOD}
                if again := self._differs_again(python, source, inputs, folders, answer, bad):
                    outcome.causes.insert(0, again)
        except RemakeError as error:
            outcome.said = str(error)
        finally:
            outcome.seconds = round(time.monotonic() - began, 3)
        return outcome

    # What it is made from

    def _inputs(self, made: dict[tuple[str, str], Path]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
        """Return the files of each input, copied into a folder of the step, and which are not as recorded."""
        given: dict[str, list[dict[str, Any]]] = {}
        replaced = []
        for number, used in enumerate(self.entry["inputs"], 1):
            for file in used["files"]:
                target = self.work / "inputs" / used["role"] / str(number) / file["name"]
                target.parent.mkdir(parents=True, exist_ok=True)
                what = f"{file['name']} of {used['mfid']}, its input {used['role']}"
                if (remade := made.get((used["mfid"], file["name"]))) is not None:
                    shutil.copyfile(remade, target)
                    if _sha256(target) != file["sha256"]:
                        replaced.append(f"{what}, {EXCHANGED}")
                elif not file.get("path"):
                    raise RemakeError(
                        f"the bytes of {what}, are not here" + (f": {why}" if (why := file.get("why")) else "")
                    )
                else:
                    shutil.copyfile(self.kit / file["path"], target)
                    if _sha256(target) != file["sha256"]:
                        raise RemakeError(f"{what}, has other bytes than those that were used: it was replaced")
                entry = {"path": str(target), "name": file["name"], "number": number}
                given.setdefault(used["role"], []).append(entry)
        return given, replaced

    def _source(self) -> Path:
        """Lay out the source, over the few files of crucible-lineage that declare a step."""
        kept, folder = self.entry["source"], self.work / "source"
        path = self.kit / kept["path"] if kept else None
        if path and _sha256(path) != kept["sha256"]:
            raise RemakeError(f"its source is not the one that the record names: {self._changed_in(path)}")
        for archive in (self.kit / RUNTIME, *([path] if path else ())):
            with zipfile.ZipFile(archive) as content:
                content.extractall(folder)
        return folder

    def _changed_in(self, path: Path) -> str:
        """Say what of the source is not in the record any more, as far as that can be known."""
        try:
            with zipfile.ZipFile(path) as content:
                files = {name: content.read(name) for name in content.namelist()}
        except (OSError, zipfile.BadZipFile) as error:
            return f"{path.name} cannot be read: {error}"
        texts = [data.decode(errors="replace") for data in files.values()]
        flat = [_flat(text) for text in texts]
        pieces = {self.entry["function"]: self.entry["text"], **self.entry["pieces"]}
        functions = {name: text for name, text in pieces.items() if text.lstrip().startswith(_DEFINED)}
        gone = [name for name, text in functions.items() if not any(_flat(text) in one for one in flat)]
        if gone:
            return f"{', '.join(gone)} was changed"
        for name, value in pieces.items():
            if name.startswith("file "):
                changed = _changed_file(name[5:], value, files)
            else:
                changed = "" if name in functions else _changed_constant(name, value, texts)
            if changed:
                return changed
        return f"{path.name} has other bytes"

    # The environment

    def _recorded_environment(self) -> dict[str, Any]:
        kept = self.entry["environment"]
        if not kept:
            return {}
        return dict(json.loads((self.kit / kept["path"]).read_text(encoding="utf-8")))

    def _environment(self) -> Path:
        """Return the Python of an environment with the recorded versions; it is built unless it is there."""
        if not self.recorded:
            raise RemakeError("its environment was not kept; make it again in the present one, with --here")
        if _sha256(self.kit / self.entry["environment"]["path"]) != self.entry["environment"]["sha256"]:
            raise RemakeError("its environment is not the one that the record names; its file was changed")
        wanted = {*self.entry["packages"]}
        if any(not isinstance(one, (str, int, float, bool, type(None))) for one in self.entry["params"].values()):
            wanted.add("pydantic")
        is_command = self.entry["function"].startswith(("run: ", "shell: "))  # nobody knows what a program imports
        self.pins = {name: one for name, one in self._all_pins().items() if is_command or name in wanted}
        return self._built()

    def _all_pins(self) -> dict[str, str]:
        packages = self.recorded["packages"]
        return {name: one["version"] for name, one in packages.items() if _is_to_be_had(packages, name)}

    def _built(self) -> Path:
        """Return the Python of an environment of the pins; what it cannot import is added to them."""
        version, pins = self.recorded["python"], self.pins
        key = hashlib.sha256(json.dumps([version, sorted(pins.items())]).encode()).hexdigest()[:16]
        folder = (self.options.environments or self.work.parent / "environments") / key
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if (folder / "whole").exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        self.tell(f"{self.entry['name']}: building an environment of {len(pins)} packages on Python {version}")
        uv = shutil.which("uv")
        self._make_environment(uv, version, folder)
        lock = self.kit / self.entry["environment"]["lock"]
        index = ["--no-index", "--find-links", str(self.options.wheels)] if self.options.wheels else []
        install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
        if pins:
            named = [f"{name}=={one}" for name, one in pins.items()]
            _must([*install, "--quiet", *index, "-c", str(lock), *named], "its environment cannot be built")
        (folder / "whole").touch()
        return python

    def _make_environment(self, uv: str | None, version: str, folder: Path) -> None:
        if not uv:
            if not version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}."):
                raise RemakeError(f"it ran with Python {version}: install uv, or start this with that Python")
            _must([sys.executable, "-m", "venv", str(folder)], "its environment cannot be built")
            return
        minor = version.rpartition(".")[0]
        for asked in (version, minor):  # the same digits of a patch are not always to be had
            done = subprocess.run([uv, "venv", "--quiet", "--python", asked, str(folder)], capture_output=True)  # noqa: S603
            if not done.returncode:
                return
        raise RemakeError(
            f"there is no Python {minor} for its environment: {_last(done.stderr)}; with --here, this one"
        )

    # Running and comparing

    def _run(
        self, python: Path, source: Path, inputs: dict[str, Any], folder: Path
    ) -> tuple[dict[str, Any], dict[str, Path], Path]:
        """Run the step; what it cannot import is installed once, with all that was. Returns also the Python it was."""
        folders = {output: folder / output for output in self.entry["outputs"]}
        for path in folders.values():
            path.mkdir(parents=True)
        request = {
            **{key: self.entry[key] for key in ("function", "params", "facts")},
            "packages": sorted({*self.entry["packages"], "numpy", "scipy", "matplotlib"}),
            "inputs": inputs,
            "outputs": {output: str(path) for output, path in folders.items()},
            "source": str(source),
            "answer": str(folder / "answer.json"),
        }
        place = folder / "request.json"
        place.write_text(json.dumps(request), encoding="utf-8")
        command = [str(python), "-B", str(self.kit / RUNNER), str(place)]
        with (folder / "printed.txt").open("wb") as printed:
            done = subprocess.run(  # noqa: S603
                command,
                cwd=folder,
                env=self._variables(python),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
            )
        if not Path(request["answer"]).is_file():
            printed_text = (folder / "printed.txt").read_bytes()
            raise RemakeError(f"it died with exit code {done.returncode}: {_last(printed_text)}")
        answer = json.loads(Path(request["answer"]).read_text(encoding="utf-8"))
        missing = str(answer.get("missing") or "").partition(".")[0]
        if missing and not self.options.here and len(self.pins) < len(self._all_pins()):
            found = {name: one for name, one in self._all_pins().items() if name == missing.replace("_", "-").lower()}
            self.pins = self.pins | found if found and not found.keys() <= self.pins.keys() else self._all_pins()
            return self._run(self._built(), source, inputs, folder.with_name(f"made-with-{len(self.pins)}"))
        return answer, folders, python

    def _variables(self, python: Path) -> dict[str, str]:
        passed = {name: value for name, value in os.environ.items() if name in PASSED}
        passed["PATH"] = f"{python.parent}{os.pathsep}{passed.get('PATH', '')}"
        if self.options.here:
            kept = self.recorded.get("variables", {}).keys() | {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANG", "TZ"}
            kept |= {"MKL_NUM_THREADS", "OPENBLAS_CORETYPE"}
            return {**passed, **{name: os.environ[name] for name in kept if name in os.environ}}
        zone = self.recorded.get("timezone", "")
        return {**({"TZ": zone} if "/" in zone else {}), **passed, **self.recorded.get("variables", {})}

    def _compared(self, python: Path, folders: dict[str, Path], answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Compare the outputs with what is recorded, in the environment of the step, which can read its files."""
        pairs, values, found, same = [], [], [], []
        returned, many = answer["returned"] or {}, len(answer["outputs"]) > 1
        for output, one in self.entry["outputs"].items():
            folder = folders[output]
            there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            for file in one["files"]:
                name = file["name"]
                if file.get("log"):
                    continue
                if (path := there.pop(name, None)) is None:
                    found.append({"name": name, "verdict": "not made", "said": "", "largest": 0.0})
                elif _sha256(path) == file["sha256"]:
                    changed = file.get("path") and _sha256(self.kit / file["path"]) != file["sha256"]
                    said = "but the copy here has other bytes than the record: that was replaced or damaged"
                    found.append({"name": name, "verdict": IDENTICAL, "said": said if changed else "", "largest": 0.0})
                elif not file.get("path"):
                    said = "the bytes differ, and the recorded ones are not available to compare numbers"
                    found.append({"name": name, "verdict": DIFFERS, "said": said, "largest": 0.0})
                elif _sha256(self.kit / file["path"]) != file["sha256"]:
                    said = "the bytes differ, and the copy here is not the recorded one: it was replaced"
                    found.append({"name": name, "verdict": DIFFERS, "said": said, "largest": 0.0})
                else:
                    pairs.append({"name": name, "recorded": str(self.kit / file["path"]), "made": str(path)})
            found += [{"name": name, "verdict": "not recorded", "said": "", "largest": 0.0} for name in sorted(there)]
            value = returned.get(output) if many else returned
            if one["returned"] is not None and json.dumps(one["returned"]) == json.dumps(value or {}):
                same.append({"name": "returned values", "verdict": IDENTICAL, "said": "", "largest": 0.0})
            elif one["returned"] is not None:
                values.append({"name": "returned values", "recorded": one["returned"], "made": value or {}})
        return [*found, *self._judged(python, pairs, values), *same]

    def _judged(
        self, python: Path, pairs: list[Any], values: list[Any], rtol: float | None = None
    ) -> list[dict[str, Any]]:
        """Compare files and values by the rules, in the environment of the step."""
        if not pairs and not values:
            return []
        verdicts, request = self.work / "compared.json", self.work / "compare.json"
        rules = {"rtol": 1e-9, **self.entry["reproduce"]}
        rtol = self.options.rtol if rtol is None else rtol
        rules |= {"rtol": rtol} if rtol is not None else {}
        request.write_text(
            json.dumps({"pairs": pairs, "values": values, "rules": rules, "answer": str(verdicts)}), encoding="utf-8"
        )
        _must([str(python), "-B", str(self.kit / COMPARER), str(request)], "what was made cannot be compared")
        return list(json.loads(verdicts.read_text(encoding="utf-8")))

    def _differs_again(
        self,
        python: Path,
        source: Path,
        inputs: dict[str, Any],
        folders: dict[str, Path],
        first: dict[str, Any],
        bad: set[str],
    ) -> str:
        """Run it once more. Return that what is bad is another each time; empty if it is the same number by number."""
        try:
            second, again, _ = self._run(python, source, inputs, self.work / "again")
        except RemakeError:
            return ""
        pairs = []
        for output, folder in folders.items():
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name, other = path.relative_to(folder).as_posix(), again[output] / path.relative_to(folder)
                if not other.is_file():
                    return f"{NOT_DETERMINISTIC}: made twice here, {name} was written once only"
                if name in bad and _sha256(other) != _sha256(path):
                    pairs.append({"name": name, "recorded": str(path), "made": str(other)})
        returned = [first.get("returned"), second.get("returned")]
        value = {"name": "returned values", "recorded": returned[0], "made": returned[1]}
        values = [value] if value["name"] in bad and returned[0] != returned[1] else []
        for one in self._judged(python, pairs, values, rtol=0.0):
            if one["verdict"] not in GOOD:
                where = f" ({one['said'].partition(':')[0]})" if values and one["name"] == value["name"] else ""
                return f"{NOT_DETERMINISTIC}: made twice here, {one['name']}{where} differs too"
        return ""

    def _causes(self, answer: dict[str, Any], folders: dict[str, Path]) -> Iterator[str]:
        """Yield what it took that it was not given, and in what the environment is another one."""
        was, now = self.recorded, answer["environment"]
        unsure = [path for path in self.entry["read"] if "(opened while it ran)" in path]
        surely = [path for path in self.entry["read"] if path not in unsure]
        if surely:
            yield f"it read {', '.join(surely[:3])}, which it was not given"
        for left in self.entry["left_out"][:MOST_LINES]:
            yield f"not kept of its source: {left}"
        if lacking := answer.get("lacking"):
            yield f"{lacking} is not among what was kept of its source: name it in `reads`"
        yield from self._asked_for(answer["seen"], now)
        if printed := self._printed_only_here(folders):
            yield f"printed here, but not originally: {'; '.join(printed)}"
        if not was:
            yield "its environment was not recorded, so differences to the present one are unknown"
            return
        yield from self._other_packages(was["packages"], now["packages"])
        yield from _other_variables(was, now)
        yield from _other_machine(was, now)
        if unsure:
            yield f"{', '.join(sorted({*unsure})[:3])}, and it was not given"

    def _asked_for(self, seen: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
        """Yield the hosts, variables and files that it asks for here, and that are not recorded."""
        if hosts := seen["hosts"]:
            yield f"it asks {', '.join(hosts[:3])} over the network, and what that answered is not recorded"
        for name in seen["variables"]:
            if name not in _VARIABLES and name not in self.recorded.get("variables", {}):
                here = "set" if name in now["variables"] else "not set"
                yield f"it reads the variable {name}, which was not recorded; here it is {here}"
        if files := [one for one in seen["files"] if not any(one in path for path in self.entry["read"])]:
            yield f"it reads {', '.join(files[:3])} here, which it was not given"

    def _other_packages(self, was: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
        for name, version in now.items():
            before = was.get(name, {}).get("version")
            is_reached = name in self.entry["packages"] and name != "crucible-lineage"
            if version != before and (is_reached or (version and before)):
                yield f"{name} is {version or 'not installed'} here, {before or 'was not installed'} by the record"

    def _printed_only_here(self, folders: dict[str, Path]) -> list[str]:
        """Return lines that the step printed now and not when its result was made; numbers in them do not count."""
        recorded = [file for one in self.entry["outputs"].values() for file in one["files"] if file.get("log")]
        if any(not file.get("path") for file in recorded):
            return []
        old = {_without_numbers(line) for file in recorded for line in _lines(self.kit / file["path"])}
        for folder in folders.values():
            new = [line for line in _lines(folder.with_name("printed.txt")) if _without_numbers(line) not in old]
            return [line[:MOST_SAID] for line in new[:MOST_LINES]]
        return []


_VARIABLES = frozenset(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OPENBLAS_CORETYPE"),
        *("MKL_CBWR", "LANG", "LC_ALL", "LC_NUMERIC", "TZ", "PYTHONHASHSEED", "NPY_DISABLE_CPU_FEATURES"),
    )
)


def _other_variables(was: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    recorded, present = was["variables"], now["variables"]
    for name in sorted(_VARIABLES.intersection((*recorded, *present))):
        here, before = present.get(name), recorded.get(name)
        if here != before and not (name == "TZ" and here == was.get("timezone")):
            yield f"{name} is {here or 'not set'} here, {before or 'was not set'} by the record"


def _other_machine(was: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    blas = {one.partition(": ")[2] for one in was["blas"]}
    if other := [one for one in now["blas"] if blas and one not in blas]:
        yield f"linear algebra is by {', '.join(other)} here, by {', '.join(sorted(blas))} by the record"
    named = (("cpu", "the processor"), ("machine", "the architecture"), ("python", "Python"))
    for name, what in (*named, ("timezone", "the time zone of the system")):
        if name in was and now.get(name) != was[name] and not (name == "timezone" and "TZ" in now["variables"]):
            yield f"{what} is {now[name]} here, {was[name]} by the record"


def _is_to_be_had(packages: dict[str, Any], name: str) -> bool:
    return name in packages and name != "crucible-lineage" and not packages[name].get("local")


_DEFINED = ("def ", "async def ", "@", "class ")


def _flat(text: str) -> str:
    """Return a text without indentation, which methods and inner functions have where they are defined."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _changed_file(name: str, value: str, files: dict[str, bytes]) -> str:
    found = [data for place, data in files.items() if f"/{place}".endswith(f"/{name}")]
    if value.removeprefix("# ") in {hashlib.sha256(data).hexdigest() for data in found}:
        return ""
    return f"{name}, which it reads, {'was changed' if found else 'is not in it'}"


def _changed_constant(name: str, value: str, texts: list[str]) -> str:
    assigned = re.compile(rf"^\s*{re.escape(name.rpartition('.')[2])}\b[^=\n]*=\s*(.+?)\s*(?:#.*)?$", re.MULTILINE)
    written = [match[1] for text in texts for match in assigned.finditer(text)]
    others = [_other_value(one, value) for one in written]
    return f"{name} is {written[0]} in it, {others[0]} by the record" if written and all(others) else ""


def _other_value(text: str, value: str) -> str:
    """Return what a piece of the record is, if a text of Python that is no calculation is another value than that."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ""
    if value.startswith("#"):  # of what is no number there is a hash of its spelling
        spelled = hashlib.sha256(f"constant str:{found!a}".encode()).hexdigest()[:12]
        return "" if not isinstance(found, str) or value == f"#{spelled}" else "another text"
    if isinstance(found, int) and not isinstance(found, bool) and re.fullmatch("-?[0-9a-f]+", value):
        recorded = int(value, 16)  # so integers are spelled
        return "" if found == recorded else str(recorded)
    return "" if repr(found) == value else value


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _without_numbers(line: str) -> str:
    return re.sub(r"[\d.:-]+", "#", line)


def _must(command: Iterable[str], what: str) -> None:
    """Run a command. RemakeError if it fails."""
    done = subprocess.run(list(command), capture_output=True)  # noqa: S603
    if done.returncode:
        raise RemakeError(f"{what}: {_last(done.stderr or done.stdout)}")


def _last(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or "it said nothing"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main() -> int:
    """Do what the command line asks for. Return the exit code."""
    kit = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mfids", nargs="*", metavar="MFID")
    parser.add_argument("--all", action="store_true", dest="is_all", help="all steps, from the measured files on")
    parser.add_argument("--here", action="store_true", help="in the environment of this Python")
    parser.add_argument("--rtol", type=float, help="relative tolerance of numbers (1e-9, or as declared)")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to install from, without an index")
    parser.add_argument("--work", type=Path, help="a new folder to work in, which stays")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    asked = parser.parse_args()
    try:
        about = json.loads((kit / PLAN).read_text(encoding="utf-8"))["about"]
    except (OSError, ValueError, KeyError) as error:
        print(f"there is nothing to make again in {kit}: {error}")
        return 2
    options = Options(asked.here, asked.rtol, asked.wheels, None, asked.is_all)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        work = asked.work or Path(scratch)
        found = remake(kit, asked.mfids or [about], options, work, lambda line: print(line, file=sys.stderr))
    if asked.as_json:
        print(json.dumps([one.to_json() for one in found], indent=1))
    else:
        for one in found:
            print("\n".join(one.lines()))
    if not found:
        print("no step of this bundle made that; --all makes all again")
        return 2
    return 0 if all(one.is_good for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
