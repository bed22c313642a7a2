"""The generated part of the page on tasks: each task of the API, by subject, without its twin."""

from __future__ import annotations

from importlib import import_module

from crucible_lineage import tasks

__all__ = ["MARK", "api_tasks"]

MARK = "<!-- the tasks of the API -->"


def api_tasks() -> str:
    """Return Markdown: a heading for each module, with the names for mkdocstrings."""
    modules = dict.fromkeys(getattr(tasks, name).fn.__module__ for name in tasks.API_TASKS)
    parts = []
    for name in modules:
        module = import_module(name)
        own = {id(getattr(tasks, item)) for item in tasks.API_TASKS}
        public = [item for item, value in vars(module).items() if id(value) in own]
        options = "    options: {show_root_heading: false, show_root_toc_entry: false, heading_level: 4, members: "
        parts.append(f"### {name.rpartition('.')[2].capitalize()}\n\n::: {name}\n{options}[{', '.join(public)}]}}")
    return "\n\n".join(parts)
