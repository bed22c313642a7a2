"""Shapes of collections of examples: extracts, quality checks, reports, models, backups, notifications."""

from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
import threading
import zipfile
from collections import defaultdict
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench import Lab, shape
from pydantic import BaseModel


@shape("create -> insert", "insert -> query")
def a_small_database(lab: Lab) -> Any:
    @lab.task
    def create(path: Path) -> Path:
        with sqlite3.connect(path) as connection:
            connection.execute("create table found (n integer)")
        connection.close()
        return path

    @lab.task
    def insert(path: Path, numbers: list[int]) -> Path:
        with sqlite3.connect(path) as connection:
            connection.executemany("insert into found values (?)", [(n,) for n in numbers])
        connection.close()
        return path

    @lab.task
    def query(path: Path) -> int:
        connection = sqlite3.connect(path)
        found = connection.execute("select sum(n) from found").fetchone()[0]
        connection.close()
        return int(found)

    @lab.flow
    def database(path: Path) -> int:
        return query(insert(create(path), [1, 2, 3]))

    return database(lab.folder / "found.sqlite")


@shape("a.txt -> pack", "b.txt -> pack", "pack -> names")
def an_archive_of_files(lab: Lab) -> Any:
    @lab.task
    def pack(paths: list[Path], target: Path) -> Path:
        with zipfile.ZipFile(target, "w") as archive:
            for path in paths:
                archive.write(path, path.name)
        return target

    @lab.task
    def names(path: Path) -> list[str]:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()

    @lab.flow
    def packing(paths: list[Path], target: Path) -> list[str]:
        return names(pack(paths, target))

    return packing([lab.file("a.txt", "1"), lab.file("b.txt", "2")], lab.folder / "all.zip")


@shape("fetch -> parse", "parse -> summarise")
def bytes_from_a_service(lab: Lab) -> Any:
    @lab.task(retries=2)
    def fetch(url: str) -> bytes:
        return b"id,value\n1,10\n2,20\n"

    @lab.task
    def parse(content: bytes) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(content.decode())))

    @lab.task
    def summarise(rows: list[dict[str, str]]) -> dict[str, int]:
        return {"rows": len(rows), "total": sum(int(row["value"]) for row in rows)}

    @lab.flow
    def calling(url: str) -> Any:
        return summarise(parse(fetch(url)))

    return calling("https://user:secret-word@example.org/data.csv")


class Article(BaseModel):
    """An article, as a service gives it."""

    title: str
    words: int = 0


@shape("articles -> longest")
def models_in_a_list(lab: Lab) -> Any:
    @lab.task
    def articles() -> list[Article]:
        return [Article(title="one", words=120), Article(title="two", words=80)]

    @lab.task
    def longest(found: list[Article]) -> str:
        return max(found, key=lambda one: one.words).title

    @lab.flow
    def reading() -> str:
        return longest(articles())

    return reading()


@shape("backup -> verify", "source.txt -> backup", "source.txt -> verify")
def a_backup_is_verified(lab: Lab) -> Any:
    @lab.task
    def backup(source: Path, target: Path) -> Path:
        target.write_bytes(source.read_bytes() + b"\n")
        return target

    @lab.task
    def verify(source: Path, copy: Path) -> bool:
        return hashlib.sha256(source.read_bytes()).digest() != hashlib.sha256(copy.read_bytes()).digest()

    @lab.flow
    def backing(source: Path, target: Path) -> bool:
        return verify(source, backup(source, target))

    return backing(lab.file("source.txt", "data"), lab.folder / "backup.txt")


@shape("-> notify", "work -> notify")
def a_message_at_the_end(lab: Lab) -> Any:
    sent = []

    @lab.task
    def work() -> dict[str, int]:
        return {"done": 3}

    @lab.task
    def notify(found: Any, channel: str) -> str:
        sent.append(channel)
        return f"{channel}: {found}"

    @lab.flow
    def notifying() -> Any:
        return [notify(work(), "mail"), notify(None, "chat"), sent]

    return notifying()


@shape()
def nothing_is_given_at_all(lab: Lab) -> Any:
    sent = []

    @lab.task
    def log_it(text: str) -> None:
        sent.append(text)

    @lab.flow
    def logging() -> Any:
        log_it("one")
        log_it("two")
        return sent

    return logging()


@shape("array (from the flow) -> settings", "settings -> connect_and_read", fast=True)
def values_with_odd_identity(lab: Lab) -> Any:
    class Mode(Enum):
        FAST = 1

    nan = float("nan")

    class Names(list):  # type: ignore[type-arg]
        pass

    names = Names(["a"])
    fixed = np.arange(5.0)
    fixed.flags.writeable = False

    @lab.task
    def settings(mode: Mode, missing: float, given: list[str], array: np.ndarray) -> dict[str, int]:
        same = [mode is Mode.FAST, missing != missing, type(given) is Names, not array.flags.writeable]
        return {"same": sum(same)}

    @lab.task
    def connect_and_read(found: dict[str, int], lock: Any) -> list[Any]:
        return [found["same"], type(lock).__name__]

    @lab.flow
    def odd() -> Any:
        return connect_and_read(settings(Mode.FAST, nan, names, fixed), threading.Lock())

    return odd()


@shape("a.txt -> opened", says=("which is described and not stored",))
def an_open_file_is_given_back(lab: Lab) -> Any:
    path = lab.file("a.txt", "one\ntwo\n")

    @lab.task
    def opened(name: str) -> Any:
        return path.open()

    @lab.flow
    def opening() -> Any:
        with opened("a") as stream:
            return stream.readline()

    return opening()


@shape("load -> by_group", "by_group -> write", "by_group -> write", in_order=False)
def groups_written_apart(lab: Lab) -> Any:
    @lab.task
    def load() -> pd.DataFrame:
        return pd.DataFrame({"g": ["a", "b", "a"], "n": [1, 2, 3]})

    @lab.task
    def by_group(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
        return {str(name): part for name, part in table.groupby("g")}

    @lab.task
    def write(name: str, part: pd.DataFrame, folder: Path) -> Path:
        target = folder / f"{name}.json"
        target.write_text(part.to_json())
        return target

    @lab.flow
    def grouping(folder: Path) -> list[str]:
        parts = by_group(load())
        futures = [write.submit(name, part, folder) for name, part in parts.items()]
        return sorted(future.result().name for future in futures)

    return grouping(lab.out())


@shape("inventory -> group", "group -> total", "group -> total")
def a_dict_that_is_walked(lab: Lab) -> Any:
    @lab.task
    def inventory() -> list[dict[str, Any]]:
        return [{"kind": "lens", "n": 2}, {"kind": "mirror", "n": 5}, {"kind": "lens", "n": 1}]

    @lab.task
    def group(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            found[row["kind"]].append(row["n"])
        return dict(found)

    @lab.task
    def total(kind: str, numbers: list[int]) -> str:
        return f"{kind}: {sum(numbers)}"

    @lab.flow
    def walking() -> list[str]:
        return [total(kind, numbers) for kind, numbers in group(inventory()).items()]

    return walking()
