"""Count what BUDGET limits: `python docs/budget.py`. Exit code 1 if a figure is above its ceiling."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PRODUCT = ("crucible_lineage", "tasks", "flows")
SHARED_OPTIONS = {"--data", "--url", "--api-key", "--json", "--help"}  # of nearly every command, made once
WORDS = re.compile(r"\S+")
EXAMPLES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Print a line for each ceiling, with the present figure."""
    figures, above = measured(), []
    for line in (ROOT / "BUDGET").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, ceiling = line.rsplit(maxsplit=1)
        figure, limit = figures.pop(name), int(ceiling.replace(",", ""))
        above += [name] if figure > limit else []
        print(f"{'above' if figure > limit else 'ok':5} {name}: {figure:,} (at most {limit:,})")
    for name in figures:
        print(f"above {name}: {figures[name]:,} (has no ceiling)")
    if above or figures:
        print(
            "Take something out, or raise the ceiling by a commit that changes nothing else and names what went for it."
        )
        sys.exit(1)


def measured() -> dict[str, int]:
    """Return the figures by their names in BUDGET."""
    files = [path for top in PRODUCT for path in (ROOT / top).rglob("*.py")]
    product, tests = _lines(files), _lines((ROOT / "tests").rglob("*.py"))
    commands = _commands()
    figures = {"lines": product}
    for path in sorted(files):
        room = _room(path)
        figures[room] = figures.get(room, 0) + _lines([path])
    return figures | {
        "modules": len(files),
        "lines of tests": tests,
        "lines of tests for each thousand of the product": 1000 * tests // product,
        "commands": len(commands),
        "own options": sum(len(_options(command)) for command in commands.values()),
        "YAML keys": len(_yaml_keys()),
        "routes": _routes(),
        "words of README and guide, code apart": _words(),
    }


def _lines(files: Iterable[Path]) -> int:
    return sum(path.read_text(encoding="utf-8").count("\n") for path in files)


def _room(path: Path) -> str:
    """Return the folder that a file is counted with: the first below the library, or `tasks` or `flows`."""
    parts = path.relative_to(ROOT).parts
    return f"lines of {'the top' if len(parts) == 2 and parts[0] == PRODUCT[0] else '/'.join(parts[:-1][:2])}"


def _commands() -> dict[str, click.Command]:
    from crucible_lineage.cli import COMMANDS
    from crucible_lineage.cli import main as group

    context = click.Context(group)
    return {name: command for name in COMMANDS if (command := group.get_command(context, name))}


def _options(command: click.Command) -> list[str]:
    """Return the options of a command and its subcommands that it does not share with nearly all."""
    own = [
        f"{command.name} {option.opts[-1]}"
        for option in command.params
        if isinstance(option, click.Option) and not SHARED_OPTIONS & set(option.opts)
    ]
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [*own, *(option for one in below for option in _options(one))]


def _yaml_keys() -> set[str]:
    from crucible_lineage.pipeline.declare.pipeline import pipeline_schema

    schema = pipeline_schema()
    return {key for model in (schema, *schema["$defs"].values()) for key in model.get("properties", {})}


def _routes() -> int:
    """Count the calls that the embedded Crucible answers, by the decorators of its routes."""
    calls = re.compile(r"^@(?:get|post|put|patch|delete)\(", re.MULTILINE)
    return sum(
        len(calls.findall(path.read_text(encoding="utf-8")))
        for path in (ROOT / "crucible_lineage" / "server").rglob("*.py")
    )


def _words() -> int:
    """Count words of the pages that people read; pages made from code, and examples are apart."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    return sum(len(WORDS.findall(EXAMPLES.sub("", page.read_text(encoding="utf-8")))) for page in pages)


if __name__ == "__main__":
    main()
