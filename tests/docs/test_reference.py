"""The reference is complete: every public name, command, option and key; and no link of a page is broken."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from prefect import Flow, Task

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "site" / "reference"
PAGES = sorted([*DOCS.glob("*.md"), *REFERENCE.glob("*.md"), *ROOT.glob("*.md")])
DOCUMENTED = (type, FunctionType, property, Task)
IDENTIFIER = re.compile(r"^::: (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Assemble the pages for mkdocs."""
    folder = tmp_path_factory.mktemp("site") / "docs"
    subprocess.run([sys.executable, DOCS / "site" / "assemble.py", folder], check=True, timeout=120)
    return folder


def shown(page: Path) -> dict[str, Any]:
    """Return the objects on a page of the reference by name: those it names, and the public ones of named modules."""
    found: dict[str, Any] = {}
    for name in IDENTIFIER.findall(page.read_text(encoding="utf-8")):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            container, _, attribute = name.rpartition(".")
            found[name] = getattr(importlib.import_module(container), attribute)
        else:
            own = [
                key for key, value in vars(module).items() if key[0] != "_" and getattr(value, "__module__", "") == name
            ]
            found |= {f"{name}.{public}": getattr(module, public) for public in getattr(module, "__all__", own)}
    return found


@pytest.mark.parametrize("room", ["tasks", "client"])
def test_every_public_name_of_a_room_is_in_the_reference(room: str, assembled: Path) -> None:
    module = importlib.import_module(f"crucible_lineage.{room}")
    things = {id(value) for page in (room, "step") for value in shown(assembled / "reference" / f"{page}.md").values()}
    twins = {f"a{name}" for name in getattr(module, "API_TASKS", ())}  # described once, for all of them
    names = [name for name in module.__all__ if name not in {"API_TASKS", *twins}]
    assert not [name for name in names if id(getattr(module, name)) not in things]


def test_every_flow_is_in_the_reference(assembled: Path) -> None:
    from crucible_lineage.flows import commands, pipelines

    things = {id(value) for value in shown(assembled / "reference" / "flows.md").values()}
    flows = [value for room in (commands, pipelines) for value in vars(room).values() if isinstance(value, Flow)]
    assert len(flows) >= 2
    assert not [flow.name for flow in flows if id(flow) not in things]


def test_every_public_name_of_the_package_is_in_the_reference(assembled: Path) -> None:
    import crucible_lineage

    ids_shown = {
        id(value) for page in ("python", "step") for value in shown(assembled / "reference" / f"{page}.md").values()
    }
    names = set(crucible_lineage.__all__) - {"__version__"}
    assert not [name for name in names if id(getattr(crucible_lineage, name)) not in ids_shown]


def test_every_subject_of_the_client_is_in_the_reference(assembled: Path) -> None:
    from crucible_lineage.client import CrucibleClient

    with CrucibleClient("http://127.0.0.1:9", "key") as client:
        subjects = {type(value) for name, value in vars(client).items() if not name.startswith("_")}
    things = shown(assembled / "reference" / "client.md").values()
    assert len(subjects) >= 8
    assert not [subject for subject in subjects if subject not in things]


def test_every_public_name_has_a_docstring(assembled: Path) -> None:
    undocumented = []
    for page in (assembled / "reference").glob("*.md"):
        for name, thing in shown(page).items():
            methods = vars(thing) if isinstance(thing, type) else {}
            objects = {name: thing, **{f"{name}.{key}": value for key, value in methods.items() if key[0] != "_"}}
            undocumented += [
                key for key, value in objects.items() if isinstance(value, DOCUMENTED) and not value.__doc__
            ]
    assert not undocumented


def test_every_command_and_option_is_on_the_page(assembled: Path) -> None:
    import click

    from crucible_lineage.cli import COMMANDS, main

    page = (assembled / "reference" / "commands.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"$ crucible-lineage {name}" in section
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) and not parameter.hidden else ():
                assert option in section, (name, option)


def test_every_key_of_a_declaration_is_on_the_page(assembled: Path) -> None:
    from crucible_lineage.pipeline.declare.pipeline import pipeline_schema

    schema = pipeline_schema()
    page = (assembled / "reference" / "yaml.md").read_text(encoding="utf-8")
    for model, described in {"": schema, **schema["$defs"]}.items():
        heading = f"{{#{model.lower()}}}\n" if model else "\n## Pipeline file\n"
        section = page.partition(heading)[2].partition("\n## ")[0]
        for key in described["properties"]:
            assert f"| `{key}` |" in section, (model, key)


def test_every_field_of_a_record_is_on_the_page(assembled: Path) -> None:
    from docs.record_schema import schema_text

    page = (assembled / "reference" / "record.md").read_text(encoding="utf-8")
    for name, model in json.loads(schema_text())["$defs"].items():
        section = page.partition(f"{{#{name.lower()}}}\n")[2].partition("\n## ")[0]
        assert not [field for field in model.get("properties", {}) if f"| `{field}` |" not in section], name


def test_everything_needed_of_a_service_is_on_the_page(assembled: Path) -> None:
    from crucible_lineage.cli.doctor import NEEDS

    page = (assembled / "reference" / "needs.md").read_text(encoding="utf-8")
    for name, needed in NEEDS.items():
        assert f"| **{name}** | {needed} |" in page, name


def test_every_variable_of_the_environment_is_on_the_page_and_no_other(assembled: Path) -> None:
    page = (assembled / "reference" / "settings.md").read_text(encoding="utf-8")
    named = re.compile(r"\b_?CRUCIBLE_(?:LINEAGE|API|GRAPH|PRIVILEGE)_[A-Z_]+\b")
    read = set().union(*(named.findall(path.read_text(encoding="utf-8")) for path in sources()))
    read -= {"_CRUCIBLE_LINEAGE_COMPLETE"}  # click's, for completion
    listed = re.findall(r"^\| `(CRUCIBLE_\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(read)


def test_every_exit_code_is_on_the_page(assembled: Path) -> None:
    from crucible_lineage import errors

    page = (assembled / "reference" / "settings.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LineageError)]
    assert {kind.exit_code for kind in kinds} <= listed
    told = [*DOCS.rglob("*.md"), *(path for path in sources() if path.parent.name in ("ask", "cli"))]
    named = re.compile(r"exit(?:s with| code) (\d+)")
    assert {int(code) for path in told for code in named.findall(path.read_text(encoding="utf-8"))} <= listed


def test_every_kind_of_finding_is_on_the_page_with_its_severity(assembled: Path) -> None:
    page = (assembled / "reference" / "findings.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w-]+)` \| (\w[\w ]*) \|", page, re.MULTILINE))
    created = set().union(
        *(re.findall(r"""Finding\(\s*["']([\w-]+)["']""", path.read_text(encoding="utf-8")) for path in sources())
    )
    assert set(listed) == created
    assert listed["mismatch"] == "error or warning"


def test_every_ingestor_is_on_the_page_with_what_it_reads(assembled: Path) -> None:
    from crucible_lineage.server.ingest import INGESTORS

    page = (assembled / "reference" / "ingestors.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [.\w ]+ \| (.+) \|$", page, re.MULTILINE))
    assert set(rows) == {ingestor.name for ingestor in INGESTORS}
    assert all(re.match(r"[A-Z].*\.$", reads) for reads in rows.values())


def sources() -> list[Path]:
    return [path for top in ("crucible_lineage", "tasks", "flows") for path in (ROOT / top).rglob("*.py")]


def test_every_page_is_in_the_site_and_has_no_broken_links(assembled: Path) -> None:
    built = sorted(assembled.rglob("*.md"))
    assert len(built) == len(PAGES) + 7  # commands, YAML, records, settings, findings, ingestors, needs
    for page in built:
        for target in re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("page", PAGES, ids=[path.stem for path in PAGES])
def test_links_of_a_page_exist_in_the_repository(page: Path) -> None:
    if page.parent == REFERENCE:
        return  # written for the site
    for target in re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
