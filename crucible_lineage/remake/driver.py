"""Make results again from a kit, and compare. Runs from a bundle, too: by Python 3.10 or newer, with nothing else."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.provenance.environment import VARIABLES
from crucible_lineage.remake import confine
from crucible_lineage.remake.compare import ALIKE, DIFFERS, IDENTICAL, ORDER, WITHIN, Comparison
from crucible_lineage.text.commands import is_command

FORMAT = "crucible-lineage/remake/1"
PLAN, RUNTIME, COMPARER = "remake/plan.json", "remake/runtime.zip", "remake/compare.py"
CHILD = "crucible_lineage.pipeline.processes.child"
FAILED, NOT_MADE = "failed", "not made again"
NOT_DETERMINISTIC = "the step is not deterministic"
EXCHANGED = "was made again with other bytes"  # of an input
GOOD = (IDENTICAL, WITHIN, ALIKE)
MOST_FILES = 8  # chosen: listed files that differ, per step
MOST_LINES = 2  # chosen: listed parts of the source that were not kept

Entry = dict[str, Any]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Options: use this Python's environment (`here`), the tolerance, the folder of environments, all, the network."""

    here: bool = False
    rtol: float | None = None
    environments: Path | None = None
    is_all: bool = False
    network: bool = False


@dataclass
class Outcome:
    """The outcome of a step: its verdict, that on each file, and possible causes of a difference.

    `recorded` are the files by dataset; `compared_with` says where they are from.
    """

    name: str
    mfids: list[str]
    verdict: str
    note: str = ""
    files: list[dict[str, Any]] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    recorded: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    compared_with: str = "the record at Crucible"

    @property
    def is_good(self) -> bool:
        """Whether the results were the same, within the tolerance."""
        return self.verdict in GOOD

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        environment = {key: value for key, value in self.environment.items() if key != "variables"}
        fields = {"said" if name == "note" else name: value for name, value in vars(self).items()}
        del fields["recorded"]
        return fields | {"environment": environment}

    def lines(self) -> Iterator[str]:
        """Yield the outcome as lines of text."""
        same = sum(file["verdict"] == IDENTICAL for file in self.files)
        counted = f": {same} of {len(self.files)} identical" if self.files else ""
        yield f"{self.name}  {', '.join(self.mfids)}  {self.verdict}{counted}" + (f": {self.note}" if self.note else "")
        for file in [file for file in self.files if file["verdict"] != IDENTICAL or file["said"]][:MOST_FILES]:
            yield f"    {file['name']}: {file['verdict']}" + (f": {file['said']}" if file["said"] else "")
        for cause in self.causes:
            yield f"    why: {cause}"
        if self.verdict == DIFFERS:
            yield f"    what was made from it: crucible-lineage impact {self.mfids[0]}"


def remake(kit: Path, mfids: Sequence[str], options: Options, work: Path, report: Report) -> list[Outcome]:
    """Make these results again, or all steps. `kit` is the folder with plan and files, `work` that for results."""
    plan = json.loads((kit / PLAN).read_text(encoding="utf-8"))
    if plan.get("format") != FORMAT:
        raise confine.RemakeError(f"{PLAN} has the format {plan.get('format')!r}, this program reads {FORMAT}")
    selected = [entry for entry in plan["steps"] if options.is_all or set(mfids) & {*_mfids(entry)}]
    remade: dict[tuple[str, str], Path] = {}
    outcomes = []
    if not (options.network or confine.network_cut()):
        report("neither bubblewrap nor unshare works on this machine: steps run with its network")
    for number, entry in enumerate(selected, 1):
        report(f"{entry['name']}: making it again")
        parents = remade if options.is_all else {}  # else each step gets its recorded inputs
        outcomes.append(_Remaking(kit, entry, options, work / f"{number:03}", report).outcome(parents))
    return outcomes


def _mfids(entry: Entry) -> list[str]:
    return [output["mfid"] for output in entry["outputs"].values()]


class _Remaking:
    """A step that is being made again."""

    def __init__(self, kit: Path, entry: Entry, options: Options, work: Path, report: Report) -> None:
        self.kit = kit
        self.entry = entry
        self.options = options
        self.work = work
        self.report = report
        environment = entry["environment"]
        self.recorded: Entry = json.loads((kit / environment["path"]).read_text("utf-8")) if environment else {}
        self.pins: dict[str, str] = {}

    def outcome(self, remade: dict[tuple[str, str], Path]) -> Outcome:
        began = time.monotonic()
        outcome = Outcome(self.entry["name"], _mfids(self.entry), NOT_MADE)
        outcome.recorded = {output["mfid"]: output["files"] for output in self.entry["outputs"].values()}
        try:
            if self.entry["why_not"]:
                raise confine.RemakeError(self.entry["why_not"])
            self.work.mkdir(parents=True)
            inputs, replaced = self._inputs(remade)
            source = self._source()
            python = Path(sys.executable) if self.options.here else self._environment()
            answer, folders, python = self._run(python, source, inputs, self.work / "made")
            outcome.environment = answer["environment"]
            if "error" in answer:
                outcome.verdict, outcome.note = FAILED, answer["error"]
                outcome.causes = list(self._causes(answer))
                return outcome
            outcome.files = self._compare_outputs(python, folders, answer)
            outcome.verdict = max((file["verdict"] for file in outcome.files), key=ORDER.index, default=IDENTICAL)
            outcome.verdict = DIFFERS if outcome.verdict in ORDER[3:] else outcome.verdict
            for name, output in self.entry["outputs"].items():
                remade |= {(output["mfid"], path.name): path for path in confine.files_in(folders[name])}
            if outcome.verdict != IDENTICAL:
                outcome.causes = [*replaced, *self._causes(answer)]
            if not outcome.is_good:
                bad = {file["name"] for file in outcome.files if file["verdict"] not in GOOD}
                if cause := self._nondeterminism(python, source, inputs, folders, answer, bad):
                    outcome.causes.insert(0, cause)
        except confine.RemakeError as error:
            outcome.note = str(error)
        finally:
            outcome.seconds = round(time.monotonic() - began, 3)
        return outcome

    # Inputs and source

    def _inputs(self, remade: dict[tuple[str, str], Path]) -> tuple[dict[str, list[tuple[int, str]]], list[str]]:
        """Copy the files of each input into a folder of the step. Return them, and notes on those not as recorded."""
        files_by_role: dict[str, list[tuple[int, str]]] = {}
        replaced = []
        for number, used in enumerate(self.entry["inputs"], 1):
            for file in used["files"]:
                target = self.work / "inputs" / used["role"] / str(number) / file["name"]
                if ".." in target.parts or not target.is_relative_to(self.work):
                    raise confine.RemakeError(f"its input {file['name']!r} has a name that leads out of its folder")
                target.parent.mkdir(parents=True, exist_ok=True)
                label = f"{file['name']} of {used['mfid']}, its input {used['role']}"
                if (source := remade.get((used["mfid"], file["name"]))) is not None:
                    shutil.copyfile(source, target)
                    if file_sha256(target) != file["sha256"]:
                        replaced.append(f"{label}, {EXCHANGED}")
                elif not file.get("path"):
                    raise confine.RemakeError(
                        f"the bytes of {label}, are not here" + (f": {reason}" if (reason := file.get("why")) else "")
                    )
                else:
                    shutil.copyfile(self.kit / file["path"], target)
                    if file_sha256(target) != file["sha256"]:
                        raise confine.RemakeError(f"{label}, has other bytes than the used ones: it was replaced")
                files_by_role.setdefault(used["role"], []).append((number, str(target)))
        return files_by_role, replaced

    def _source(self) -> Path:
        """Unpack the source, together with the files of crucible-lineage that declare a step."""
        source, folder = self.entry["source"], self.work / "source"
        path = self.kit / source["path"] if source else None
        if path and file_sha256(path) != source["sha256"]:
            raise confine.RemakeError(f"its source is not the one that the record names: {path.name} has other bytes")
        for archive in (self.kit / RUNTIME, *([path] if path else ())):
            confine.unpack(archive, folder)
        return folder

    # The environment

    def _environment(self) -> Path:
        """Return the Python of an environment with the recorded versions; build it if need be."""
        if not self.recorded:
            raise confine.RemakeError("its environment was not kept; make it again in the present one, with --here")
        if file_sha256(self.kit / self.entry["environment"]["path"]) != self.entry["environment"]["sha256"]:
            raise confine.RemakeError("its environment is not the one that the record names; its file was changed")
        needed = {*self.entry["packages"]}
        if any(not isinstance(value, (str, int, float, bool, type(None))) for value in self.entry["params"].values()):
            needed.add("pydantic")
        is_program = is_command(self.entry["function"])  # whose imports are unknown
        self.pins = {name: version for name, version in self._all_pins().items() if is_program or name in needed}
        return self._build_environment()

    def _all_pins(self) -> dict[str, str]:
        packages = self.recorded["packages"].items()
        return {name: own["version"] for name, own in packages if name != "crucible-lineage" and not own.get("local")}

    def _build_environment(self) -> Path:
        """Build an environment with the pins, unless it exists, and return its Python."""
        version, pins = self.recorded["python"], self.pins
        key = hashlib.sha256(json.dumps([version, sorted(pins.items())]).encode()).hexdigest()[:16]
        folder = (self.options.environments or self.work.parent / "environments") / key
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if (folder / "whole").exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        self.report(f"{self.entry['name']}: building an environment of {len(pins)} packages on Python {version}")
        uv = shutil.which("uv")
        self._make_environment(uv, version, folder)
        lock = self.kit / self.entry["environment"]["lock"]
        install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
        if pins:
            requirements = [f"{name}=={pin}" for name, pin in pins.items()]
            confine.check_run([*install, "--quiet", "-c", str(lock), *requirements], "its environment cannot be built")
        (folder / "whole").touch()
        return python

    def _make_environment(self, uv: str | None, version: str, folder: Path) -> None:
        if not uv:
            if not version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}."):
                raise confine.RemakeError(f"it ran with Python {version}: install uv, or start this with that Python")
            confine.check_run([sys.executable, "-m", "venv", str(folder)], "its environment cannot be built")
            return
        minor = version.rpartition(".")[0]
        for requested in (version, minor):  # the same patch release is not always available
            done = confine.run_clean([uv, "venv", "--quiet", "--python", requested, str(folder)])
            if not done.returncode:
                return
        raise confine.RemakeError(
            f"there is no Python {minor} for its environment: {confine.last_lines(done.stderr)}; with --here, this one"
        )

    # Running and comparing

    def _run(
        self, python: Path, source: Path, inputs: dict[str, Any], folder: Path
    ) -> tuple[dict[str, Any], dict[str, Path], Path]:
        """Run the step, again with more packages if an import fails. Return answer, folders, and the Python used."""
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
        request_path = folder / "request.json"
        request_path.write_text(json.dumps(request), encoding="utf-8")
        path = f"[{str(source)!r}, *sys.path[1:]]"
        call = f"import sys; sys.path[:] = {path}; from {CHILD} import remake; remake({str(request_path)!r})"
        code = self._execute(python, ["-c", call], request_path)
        try:
            answer = json.loads(Path(request["answer"]).read_text(encoding="utf-8"))
            _ = answer["seen"]["hosts"], answer["environment"]["variables"], "error" in answer or answer["outputs"]
        except (OSError, ValueError, KeyError, TypeError):
            printed_text = (folder / "printed.txt").read_bytes()
            raise confine.RemakeError(f"it died with exit code {code}: {confine.last_lines(printed_text)}") from None
        missing = str(answer.get("missing") or "").partition(".")[0]
        if missing and not self.options.here and len(self.pins) < len(self._all_pins()):
            name = missing.replace("_", "-").lower()
            added = {pin: version for pin, version in self._all_pins().items() if pin == name}
            self.pins = self.pins | added if added and not added.keys() <= self.pins.keys() else self._all_pins()
            python = self._build_environment()
            return self._run(python, source, inputs, folder.with_name(f"made-with-{len(self.pins)}"))
        return answer, folders, python

    def _execute(self, python: Path, arguments: Sequence[str], request: Path) -> int:
        """Run a program of ours on a request, within limits. Return its exit code."""
        recorded = [file.get("size") or 0 for output in self.entry["outputs"].values() for file in output["files"]]
        seconds = max(confine.LEAST_S, confine.MOST_TIMES * float(self.entry["seconds"]))
        limits = confine.Limits(seconds, confine.MOST_BYTES + confine.MOST_RATIO * sum(recorded), self.options.network)
        zone = str(self.recorded.get("timezone", ""))
        variables = {**({"TZ": zone} if "/" in zone else {}), **self.recorded.get("variables", {})}
        command = [str(python), "-B", *arguments]
        return confine.run_confined(
            *(command, request, self.work, confine.step_variables(python, variables, here=self.options.here), limits)
        )

    def _compare_outputs(self, python: Path, folders: dict[str, Path], answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Compare the outputs with the recorded ones, in the environment of the step, which can read its files."""
        pairs, values, verdicts, same = [], [], [], []
        returned, many = answer["result"] or {}, len(answer["outputs"]) > 1
        for output, recorded in self.entry["outputs"].items():
            folder = folders[output]
            written = {path.relative_to(folder).as_posix(): path for path in confine.files_in(folder)}
            for file in recorded["files"]:
                name, digest = file["name"], file["sha256"]
                if file.get("log"):
                    continue
                copy = file_sha256(self.kit / file["path"]) if file.get("path") else None
                if (path := written.pop(name, None)) is None:
                    verdicts.append(_verdict(name, "not made"))
                elif file_sha256(path) == digest:
                    note = "but the copy here has other bytes than the record: that was replaced or damaged"
                    verdicts.append(_verdict(name, IDENTICAL, note if copy not in (None, digest) else ""))
                elif copy is None:
                    note = "the bytes differ, and the recorded ones are not available to compare numbers"
                    verdicts.append(_verdict(name, DIFFERS, note))
                elif copy != digest:
                    note = "the bytes differ, and the copy here is not the recorded one: it was replaced"
                    verdicts.append(_verdict(name, DIFFERS, note))
                else:
                    pairs.append({"name": name, "recorded": str(self.kit / file["path"]), "made": str(path)})
            verdicts += [_verdict(name, "not recorded") for name in sorted(written)]
            value = returned.get(output) if many else returned
            if recorded["returned"] is not None and json.dumps(recorded["returned"]) == json.dumps(value or {}):
                same.append(_verdict("returned values", IDENTICAL))
            elif recorded["returned"] is not None:
                values.append({"name": "returned values", "recorded": recorded["returned"], "made": value or {}})
        return [*verdicts, *self._compare(python, pairs, values), *same]

    def _compare(
        self, python: Path, pairs: list[Any], values: list[Any], rtol: float | None = None
    ) -> list[dict[str, Any]]:
        """Compare files and values by the step's rules, in its environment."""
        if not pairs and not values:
            return []
        verdicts, request = self.work / "compared.json", self.work / "compare.json"
        rules = {"rtol": 1e-9, **self.entry["reproduce"]}
        rtol = self.options.rtol if rtol is None else rtol
        rules |= {"rtol": rtol} if rtol is not None else {}
        request.write_text(
            json.dumps({"pairs": pairs, "values": values, "rules": rules, "answer": str(verdicts)}), encoding="utf-8"
        )
        if code := self._execute(python, [str(self.kit / COMPARER), str(request)], request):
            reason = confine.last_lines(request.with_name("printed.txt").read_bytes())
            raise confine.RemakeError(f"what was made cannot be compared (exit code {code}): {reason}")
        return list(json.loads(verdicts.read_text(encoding="utf-8")))

    def _nondeterminism(
        self,
        python: Path,
        source: Path,
        inputs: dict[str, Any],
        folders: dict[str, Path],
        first: dict[str, Any],
        bad: set[str],
    ) -> str:
        """Run the step once more. Return how the bad files differ again; empty if they are equal number by number."""
        try:
            second, second_folders, _ = self._run(python, source, inputs, self.work / "again")
        except confine.RemakeError:
            return ""
        pairs = []
        for output, folder in folders.items():
            for path in sorted(confine.files_in(folder)):
                name, other = path.relative_to(folder).as_posix(), second_folders[output] / path.relative_to(folder)
                if not other.is_file():
                    return f"{NOT_DETERMINISTIC}: made twice here, {name} was written once only"
                if name in bad and file_sha256(other) != file_sha256(path):
                    pairs.append({"name": name, "recorded": str(path), "made": str(other)})
        returned = [first.get("result"), second.get("result")]
        value = {"name": "returned values", "recorded": returned[0], "made": returned[1]}
        values = [value] if value["name"] in bad and returned[0] != returned[1] else []
        for verdict in self._compare(python, pairs, values, rtol=0.0):
            if verdict["verdict"] not in GOOD:
                where = f" ({verdict['said'].partition(':')[0]})" if values and verdict["name"] == value["name"] else ""
                return f"{NOT_DETERMINISTIC}: made twice here, {verdict['name']}{where} differs too"
        return ""

    def _causes(self, answer: dict[str, Any]) -> Iterator[str]:
        """Yield possible causes: undeclared accesses, and differences of the environment."""
        was, now = self.recorded, answer["environment"]
        if undeclared := self.entry["read"]:
            yield f"it read {', '.join(undeclared[:3])}, which it was not given"
        for omitted in self.entry["left_out"][:MOST_LINES]:
            yield f"not kept of its source: {omitted}"
        if missing_file := answer.get("lacking"):
            yield f"{missing_file} is not among what was kept of its source: name it in `reads`"
        yield from self._undeclared_accesses(answer["seen"], now)
        if not was:
            yield "its environment was not recorded, so differences to the present one are unknown"
            return
        for name, version in now["packages"].items():
            before = was["packages"].get(name, {}).get("version")
            is_reached = name in self.entry["packages"] and name != "crucible-lineage"
            if version != before and (is_reached or (version and before)):
                yield f"{name} is {version or 'not installed'} here, {before or 'was not installed'} by the record"
        for name in sorted({*VARIABLES} & {*was["variables"], *now["variables"]}):
            here, before = now["variables"].get(name), was["variables"].get(name)
            if here != before and not (name == "TZ" and here == was.get("timezone")):
                yield f"{name} is {here or 'not set'} here, {before or 'was not set'} by the record"
        yield from _other_machine(was, now)

    def _undeclared_accesses(self, accesses: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
        """Yield the hosts, variables and files that the step accesses here without a record."""
        if hosts := accesses["hosts"]:
            cut = "" if self.options.network else "; it had no network here, --network gives it one"
            yield f"it asks {', '.join(hosts[:3])} over the network, and what that answered is not recorded{cut}"
        for name in accesses["variables"]:
            if name not in VARIABLES and name not in self.recorded.get("variables", {}):
                here = "set" if name in now["variables"] else "not set"
                yield f"it reads the variable {name}, which was not recorded; here it is {here}"
        if files := [file for file in accesses["files"] if not any(file in path for path in self.entry["read"])]:
            yield f"it reads {', '.join(files[:3])} here, which it was not given"


def _other_machine(was: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    bringing = {library.partition(": ")[0] for library in was["blas"]}
    here = {library for library in now["blas"] if library.partition(": ")[0] in bringing}
    if other := sorted(here.difference(was["blas"])):
        yield f"linear algebra is by {', '.join(other)} here, by {', '.join(was['blas'])} by the record"
    labels = (("cpu", "the processor"), ("machine", "the architecture"), ("python", "Python"))
    for name, label in (*labels, ("timezone", "the time zone of the system")):
        if name in was and now.get(name) != was[name] and not (name == "timezone" and "TZ" in now["variables"]):
            yield f"{label} is {now[name]} here, {was[name]} by the record"


def _verdict(name: str, verdict: str, note: str = "") -> dict[str, Any]:
    return Comparison(name, verdict, note)._asdict()


def main(kit: Path, description: str) -> int:
    """Make the results of the command line again, from the bundle in the folder `kit`. Return the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mfids", nargs="*", metavar="MFID")
    parser.add_argument("--all", action="store_true", dest="is_all", help="all steps, from the measured files on")
    parser.add_argument("--here", action="store_true", help="in the environment of this Python")
    parser.add_argument("--rtol", type=float, help="relative tolerance of numbers (1e-9, or as declared)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    parser.add_argument("--network", action="store_true", help="let the steps use the network")
    arguments = parser.parse_args()
    try:
        about = json.loads((kit / PLAN).read_text(encoding="utf-8"))["about"]
    except (OSError, ValueError, KeyError) as error:
        print(f"there is nothing to make again in {kit}: {error}")
        return 2
    options = Options(arguments.here, arguments.rtol, None, arguments.is_all, arguments.network)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        report = partial(print, file=sys.stderr)
        outcomes = remake(kit, arguments.mfids or [about], options, Path(scratch), report)
    if arguments.as_json:
        print(json.dumps([outcome.to_json() for outcome in outcomes], indent=1))
    else:
        for outcome in outcomes:
            print("\n".join(outcome.lines()))
    if not outcomes:
        print("no step of this bundle made that; --all makes all again")
        return 2
    return 0 if all(outcome.is_good for outcome in outcomes) else 1
