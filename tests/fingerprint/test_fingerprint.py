"""What a fingerprint tells beside its digest, and the ways in which running code and files part."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from crucible_lineage.fingerprint.walk import code_fingerprint
from crucible_lineage.step import Step
from tests.golden.stored import run_examples

ModuleOf = Callable[[str], ModuleType]


@pytest.mark.parametrize("name", ["source", "walks"])
def test_the_examples_hold(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))


def test_every_first_party_file_is_named_so_that_a_change_of_it_is_looked_at(laboratory: Any) -> None:
    (laboratory.folder / "unused.py").write_text("")
    laboratory.edit("filters.py", "from . import nested\n", "from . import nested, unused\n")
    names = {Path(file).name for file in laboratory.fingerprint().files}

    assert names == {path.name for path in laboratory.folder.glob("*.py")}


def test_state_that_the_code_changes_itself_is_named(laboratory: Any) -> None:
    assert [note.split()[0] for note in laboratory.fingerprint().not_covered] == [
        "CALIBRATION.seen",
        "_cache",
        "_calls",
    ]


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("eval('1 + 1')", "eval (code that is known only when it runs)"),
        ("importlib.import_module('json')", "importlib.import_module (code that is known only when it runs)"),
        ("subprocess.run(['fit'])", "subprocess.run (another program)"),
        ("os.environ['MODE']", "os.environ (the environment, which is no part of the identity)"),
        ("exec('1')", "exec (code that is known only when it runs)"),
        ("pickle.loads(b'')", "pickle.loads (code that lies in data)"),
        ("os.system('fit')", "os.system (another program)"),
        ("getenv('MODE')", "os.getenv (the environment, which is no part of the identity)"),
        ("helper.__doc__", "helper.__doc__ (docstrings, which are no part of the identity)"),
        ("helper.__annotations__", "helper.__annotations__ (type hints, which are no part of the identity)"),
        ("typing.get_type_hints(helper)", "typing.get_type_hints (type hints, which are no part of the identity)"),
        ("ctypes.CDLL('x')", "ctypes.CDLL (compiled code)"),
        ("__file__", "__file__ (the place of the code, which is no part of the identity)"),
        ("FOLDER", "FOLDER (a path beside the code; what lies there is not covered)"),
        ("generator.random()", "generator (a numpy.random._generator.Generator, whose state is not covered)"),
    ],
)
def test_what_cannot_be_followed_is_named(module_of: ModuleOf, code: str, note: str) -> None:
    module = module_of(
        "import ctypes, importlib, os, pickle, subprocess, typing\nfrom os import getenv\nfrom pathlib import Path\n"
        "import numpy as np\ngenerator = np.random.default_rng(1)\nFOLDER = Path(__file__).parent\n"
        f"def helper(): pass\ndef run():\n    return {code}\n"
    )

    assert code_fingerprint(module.run).not_covered == (note,)


CHANGES = ("S.append(1)", "S[0] = 1", "S[0][1].append(2)", "del S[0]", "S += [1]", "S[0]['a']['b'] = 1", "S.sort()")


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_code_changes_in_any_way_is_named(module_of: ModuleOf, change: str) -> None:
    module = module_of(f"S = [[0, []]]\ndef add():\n    global S\n    {change}\ndef run(): return S, add()\n")
    assert [note.split()[0] for note in code_fingerprint(module.run).not_covered] == ["S"]


def test_code_without_source_is_named_and_still_counts() -> None:
    def made(text: str) -> Any:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(text, names)
        return code_fingerprint(names["run"])

    one, two = made("def run(): return 1"), made("def run(): return 2")

    assert one.not_covered == ("__main__:run (no source text)",)
    assert one.digest != two.digest


def test_a_module_that_is_passed_on_counts_as_a_whole(laboratory: Any, new_laboratory: Callable[[], Any]) -> None:
    other = new_laboratory()
    other.edit("filters.py", "def unused(value):\n    return value", "def unused(value):\n    return -value")
    for each in (laboratory, other):
        each.edit("steps.py", "    names = {", "    getattr(filters, label)\n    names = {")

    assert laboratory.fingerprint().digest != other.fingerprint().digest


@pytest.mark.parametrize("slots", [False, True])
def test_a_value_of_a_field_that_is_known_only_at_import_counts(
    module_of: ModuleOf, monkeypatch: pytest.MonkeyPatch, slots: bool
) -> None:
    text = (
        "import os\nfrom dataclasses import dataclass\ndef read(): return float(os.environ['GAIN'])\n"
        f"@dataclass(slots={slots})\nclass Gain:\n    value: float = read()\ndef run(): return Gain().value\n"
    )
    digests = set()
    for gain in ("1", "2"):
        monkeypatch.setenv("GAIN", gain)
        digests.add(code_fingerprint(module_of(text).run).digest)

    assert len(digests) == 2


DIFFERENT = {
    "seed of an object with hidden state": (
        "import numpy as np\nrng = np.random.default_rng({})\ndef run(): return rng.random()\n",
        (1, 2),
    ),
    "function looked up in globals": ("def other(): return {}\ndef run(name): return globals()[name]()\n", (1, 2)),
    "which of two functions a name means": (
        "def f(x): return x\ndef g(x): return -x\nA = {}\ndef run(x): return f(x) + g(x) - A(x)\n",
        ("f", "g"),
    ),
    "first value of a class attribute that methods change": (
        "class Counter:\n    n = {}\n    def add(self): Counter.n += 1\ndef run(): return Counter().add()\n",
        (1, 2),
    ),
}


@pytest.mark.parametrize(("text", "values"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_when_the_code_is_imported_counts(module_of: ModuleOf, text: str, values: tuple[Any, Any]) -> None:
    one, two = (code_fingerprint(module_of(text.format(value)).run).digest for value in values)

    assert one != two


@pytest.mark.parametrize(("module", "name", "value"), [("filters", "deepest", print), ("steps", "SCALE", 3.5)])
def test_what_was_replaced_since_the_import_counts(
    laboratory: Any, monkeypatch: pytest.MonkeyPatch, module: str, name: str, value: Any
) -> None:
    before = laboratory.fingerprint().digest
    monkeypatch.setattr(laboratory.module(module), name, value)

    assert laboratory.fingerprint().digest != before


def test_two_functions_of_one_name_are_told_apart(module_of: ModuleOf) -> None:
    module = module_of("def run(): return 1\nfirst = run\ndef run(): return 2\n")
    alone = module_of("def run(): return 1\n")

    assert code_fingerprint(module.first).digest == code_fingerprint(alone.run).digest
    assert code_fingerprint(module.first).digest != code_fingerprint(module.run).digest


def test_a_function_of_ours_put_into_a_library_counts(module_of: ModuleOf, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of("import numpy as np\ndef mine(x): return x\ndef run(x): return np.sum(x)\n")
    before = code_fingerprint(module.run).digest
    monkeypatch.setattr(np, "sum", module.mine)

    assert code_fingerprint(module.run).digest != before


def test_a_data_file_beside_the_code_counts_wherever_it_lies(tmp_path: Path, module_of: ModuleOf) -> None:
    text = (
        "from pathlib import Path\nTABLE = Path(__file__).parent / 'table.csv'\ndef run(): return TABLE.read_text()\n"
    )
    (tmp_path / "table.csv").write_text("1")
    module = module_of(text)
    before = code_fingerprint(module.run)
    (tmp_path / "table.csv").write_text("2")

    assert str(tmp_path) not in json.dumps(before.pieces)
    assert str(tmp_path / "table.csv") in before.files
    assert code_fingerprint(module.run).digest != before.digest


def test_running_code_is_not_given_the_fingerprint_of_a_file_edited_since(laboratory: Any) -> None:
    laboratory.module()
    laboratory.edit("filters.py", "return value**exponent", "return value**-exponent")
    running = laboratory.fingerprint()
    for name in [name for name in sys.modules if name.startswith(laboratory.package)]:
        del sys.modules[name]
    edited = laboratory.fingerprint()

    assert f"{laboratory.package}.filters:power (its file was changed after it was imported)" in running.not_covered
    assert running.digest != edited.digest


def test_a_decorated_step_is_followed_into_the_function_below(module_of: ModuleOf) -> None:
    text = (
        "import functools\nfrom pathlib import Path\nfrom crucible_lineage import step\n"
        "def logged(f):\n    @functools.wraps(f)\n    def wrapper(*a, **k): return f(*a, **k)\n    return wrapper\n"
        "@step\n@logged\ndef run(x: Path, *, degree: int = {}, out: Path): return degree + {}\n"
    )
    one, default, code = (code_fingerprint(module_of(text.format(*v)).run).digest for v in ((1, 1), (2, 1), (1, 2)))

    assert one == default
    assert one != code


def test_a_step_called_by_a_step_counts_by_its_code_or_its_version(module_of: ModuleOf) -> None:
    text = (
        "from pathlib import Path\nfrom crucible_lineage import step\n"
        "@step{}\ndef inner(x: Path, *, out: Path): return {}\n"
        "@step\ndef run(x: Path, *, out: Path): return inner(x, out=out)\n"
    )
    digests = [
        code_fingerprint(module_of(text.format(*values)).run).digest
        for values in (("", 1), ("", 2), ("(version='1')", 1), ("(version='1')", 2), ("(version='2')", 2))
    ]

    assert digests[0] != digests[1]
    assert digests[2] == digests[3] != digests[4]


def test_another_python_gives_the_same_fingerprint(laboratory: Any, other_python: str, tmp_path: Path) -> None:
    """The modules that need nothing installed; that other Python has perhaps no numpy."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]\nimport importlib\n"
        "from crucible_lineage.fingerprint.walk import code_fingerprint\n"
        "for name, function in (('registry', 'deep'), ('calibration', 'Calibration'), ('filters', 'baseline')):\n"
        "    module = importlib.import_module(f'{sys.argv[3]}.{name}')\n"
        "    print(code_fingerprint(getattr(module, function)).digest)\n"
    )
    root = Path(code_fingerprint.__code__.co_filename).parents[2]
    told = [
        subprocess.run(
            [python, "-c", script, root, tmp_path, laboratory.package], capture_output=True, text=True, check=True
        ).stdout.split()
        for python in (sys.executable, other_python)
    ]

    assert len(told[0]) == 3
    assert told[0] == told[1]


def test_the_input_shapes_of_a_plain_function_count_once_it_is_a_step(module_of: ModuleOf) -> None:
    text = "from pathlib import Path\ndef run(x: {}, *, out: Path): return [str(part) for part in x]\n"
    step, many = (Step(module_of(text.format(hint)).run) for hint in ("Path", "list[Path]"))

    assert code_fingerprint(step).digest != code_fingerprint(many).digest
