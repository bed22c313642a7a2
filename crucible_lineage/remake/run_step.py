"""Run one step on recorded inputs, in the environment of this Python: `python run_step.py REQUEST.json`.

The request names function or command, parameters, files by input, and the folders to write into. The answer, a JSON
file, contains the returned values or the error, and the environment. This file is copied into bundles; it needs only
the step's own packages, and the files of crucible-lineage that declare a step.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

FIELD = re.compile(r"\{([^{}]*)\}")
SHELL_FIELD = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
SYSTEM = ("/usr", "/etc", "/proc", "/sys", "/lib", "/lib64", "/bin")
CODE = (".py", ".pyc", ".pyi", ".so", ".pyd", ".dll", ".pth")
LOOKING_UP = (os.__file__, "<frozen os>", sys.modules["_collections_abc"].__file__, "<frozen _collections_abc>")
MOST_ACCESSES = 8  # chosen: of one kind, named in an answer
BLAS = re.compile(r"lib[\w.-]*(?:openblas|mkl_rt|blis|flexiblas)[\w.-]*\.(?:so|dylib|dll)[\w.]*")


def main() -> int:
    """Answer the request. Returns 0 even if the step has failed, which is in the answer."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path[:0] = [request["source"]]
    answer: dict[str, Any] = {}
    accesses = watch_accesses(request)
    try:
        call = command if request["function"].startswith(("run: ", "shell: ")) else function
        returned, answer["outputs"] = call(request)
        answer["returned"] = plain(returned)
    except BaseException as error:
        answer["error"] = f"{type(error).__name__}: {error}"
        answer["missing"] = error.name if isinstance(error, ModuleNotFoundError) else None
        answer["trace"] = traceback.format_exc()
        if isinstance(error, FileNotFoundError) and str(error.filename).startswith(request["source"]):
            answer["lacking"] = os.path.relpath(str(error.filename), request["source"])
    answer["seen"] = {kind: list(names)[:MOST_ACCESSES] for kind, names in accesses.items()}
    answer["environment"] = environment(request["packages"])
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


def watch_accesses(request: dict[str, Any]) -> dict[str, dict[str, None]]:
    """Start to note undeclared accesses of the step: files, hosts, and variables that its code reads."""
    accesses: dict[str, dict[str, None]] = {"files": {}, "hosts": {}, "variables": {}}
    source = os.path.join(request["source"], "")  # noqa: PTH118
    work = str(Path(request["answer"]).parents[1])
    ignored = tuple(
        os.path.join(folder, "")  # noqa: PTH118
        for folder in (sys.prefix, sys.base_prefix, work, request["source"], *SYSTEM, Path.home() / ".cache")
    )
    written: set[str] = set()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" and arguments[0]:
            accesses["hosts"][f"{as_text(arguments[0])}:{as_text(arguments[1])}"] = None
        elif event == "open" and isinstance(arguments[0], (str, bytes)) and isinstance(arguments[2], int):
            name = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100
            if arguments[2] & (os.O_WRONLY | os.O_RDWR):
                written.add(name)
            elif not (
                name in written or "site-packages" in name or name.startswith(ignored) or name.endswith(CODE)
            ) and os.path.isfile(name):  # noqa: PTH113
                accesses["files"][name] = None

    def get_noted(self: Any, name: Any) -> Any:
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename in LOOKING_UP:
            frame = frame.f_back
        if (
            frame.f_code.co_filename.startswith(source)
            and f"{os.sep}crucible_lineage{os.sep}" not in frame.f_code.co_filename
        ):
            accesses["variables"][str(name)] = None
        return look_up(self, name)

    kind = type(os.environ)
    look_up = kind.__getitem__
    kind.__getitem__ = get_noted  # type: ignore[method-assign]
    sys.addaudithook(note)
    return accesses


def as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def function(request: dict[str, Any]) -> tuple[Any, list[str]]:
    """Call the function `module:name`. Return its value, and the names of its outputs."""
    from crucible_lineage.machine.pictures import draw_returned
    from crucible_lineage.refs import DatasetFacts, Facts
    from crucible_lineage.step import Step

    module, _, name = request["function"].partition(":")
    target = getattr(importlib.import_module(module), name)
    step = target if isinstance(target, Step) else Step(target)
    shapes = {known.name: str(known.shape) for known in step.inputs}
    arguments: dict[str, Any] = {role: shaped(shapes[role], files) for role, files in request["inputs"].items()}
    beside = Path(request["answer"]).parent
    folders = {name: Path(request["outputs"].get(name, beside / f"not asked for {name}")) for name in step.outputs}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    arguments |= folders
    for spec in step.parameters:
        if spec.name in request["params"]:
            arguments[spec.name] = converted(spec.annotation, request["params"][spec.name])
    if step.facts:
        entries = {role: [DatasetFacts.from_json(fact) for fact in facts] for role, facts in request["facts"].items()}
        arguments[step.facts] = Facts({**{role.name: () for role in step.inputs}, **entries})
    return draw_returned(step.function(**arguments), folders)[0], list(step.outputs)


def shaped(shape: str, files: list[dict[str, Any]]) -> Any:
    """Return the files of an input in the shape that the step accepts."""
    if shape == "file":
        return Path(files[0]["path"])
    if shape == "files":
        return [Path(file["path"]) for file in files]
    names = [file["name"] for file in files]
    keys = [
        name if names.count(name) == 1 else f"{file['number']}/{name}" for name, file in zip(names, files, strict=False)
    ]
    return {key: Path(file["path"]) for key, file in zip(keys, files, strict=False)}


def converted(annotation: Any, value: Any) -> Any:
    """Return a recorded parameter with the type of the function's annotation."""
    if annotation is inspect.Parameter.empty or type(value) is annotation or value is None:
        return value
    try:
        from pydantic import TypeAdapter
    except ImportError:
        return annotation(value) if isinstance(annotation, type) else value
    try:
        return TypeAdapter(annotation).validate_python(value)
    except Exception:
        return value


def command(request: dict[str, Any]) -> tuple[Any, list[str]]:
    """Run the command in a separate folder. Return the metadata that it wrote to metadata.json."""
    text = request["function"]
    shell = text.startswith("shell: ")
    parts = shlex.split(text.partition(": ")[2])
    env = {}
    while parts and re.match(r"[A-Za-z_][A-Za-z0-9_]*=", parts[0]):
        name, _, value = parts.pop(0).partition("=")
        env[name] = value
    arguments = ["sh", "-c", parts[-1]] if shell else parts
    source, out = Path(request["source"]), Path(request["outputs"]["out"])
    facts = Path(request["answer"]).with_name("facts.json")
    if request["facts"] is not None:
        facts.write_text(json.dumps(request["facts"], indent=1, ensure_ascii=False), encoding="utf-8")
    filled = [part for argument in arguments for part in fill(argument, request, out, facts, shell)]
    filled = [str(source / part) if (source / part).is_file() else part for part in filled]
    if not shell and re.fullmatch(r"python[\d.]*(\.exe)?", Path(filled[0]).name):
        filled[0] = sys.executable
    folder = out.parent / "work"
    folder.mkdir()
    subprocess.run(filled, cwd=folder, env={**os.environ, **env}, check=True)  # noqa: S603
    written = out / "metadata.json"
    if not written.is_file():
        return {}, ["out"]
    returned = json.loads(written.read_text(encoding="utf-8"))
    written.unlink()
    return returned, ["out"]


def fill(argument: str, request: dict[str, Any], out: Path, facts: Path, shell: bool) -> list[str]:
    """Return an argument with its fields filled in; a field of input files alone becomes several arguments."""
    paths = {role: [file["path"] for file in files] for role, files in request["inputs"].items()}
    field = None if shell else FIELD.fullmatch(argument)
    if field and field[1].startswith("inputs."):
        return paths[field[1][7:]]
    quoted = shlex.quote if shell else str

    def value(match: re.Match[str]) -> str:
        kind, _, name = match[1].partition(".")
        if kind == "inputs":
            return " ".join(quoted(path) for path in paths[name])
        content = {"out": str(out), "facts": str(facts)}.get(kind) or request["params"][name]
        return quoted(content if isinstance(content, str) else json.dumps(content))

    return [(SHELL_FIELD if shell else FIELD).sub(value, argument)]


def plain(value: Any) -> Any:
    """Return a value in a form that JSON can represent."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, Path) else str(value)


def environment(packages: list[str]) -> dict[str, Any]:
    """Return the parts of the environment that may affect results."""
    from crucible_lineage.provenance.environment import cpu, timezone

    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu(),
        "packages": versions,
        "variables": dict(os.environ),
        "timezone": timezone(),
        "blas": sorted(loaded_blas()),
    }


def loaded_blas() -> set[str]:
    """Return the linear algebra libraries that this process has loaded."""
    try:
        return set(BLAS.findall(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return set()


if __name__ == "__main__":
    raise SystemExit(main())
