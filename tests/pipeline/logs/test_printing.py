"""The output and logging of functions in this process are kept by thread, and still reach the original streams."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from crucible_lineage.pipeline import logs
from crucible_lineage.pipeline.logs import keeping_prints


@pytest.fixture(autouse=True)
def streams() -> Iterator[None]:
    """The streams and handlers of this process are what they were, afterwards."""
    before, handlers, level = (sys.stdout, sys.stderr), list(logging.getLogger().handlers), logging.getLogger().level
    yield
    sys.stdout, sys.stderr = before
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def test_the_output_of_each_thread_is_kept_separately(capsys: pytest.CaptureFixture[str]) -> None:
    kept: dict[str, list[bytes]] = {"one": [], "two": []}
    both = threading.Barrier(2)

    def work(name: str) -> None:
        with keeping_prints(kept[name].append):
            both.wait()
            print(f"{name} says so")
            print(f"{name} complains", file=sys.stderr)
            logging.getLogger("lab").warning("%s warns", name)
            both.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in kept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("nobody keeps this")
    for name, parts in kept.items():
        assert b"".join(parts).decode() == f"{name} says so\n{name} complains\nWARNING lab: {name} warns\n"
    shown = capsys.readouterr()
    assert sorted(shown.out.splitlines()) == ["nobody keeps this", "one says so", "two says so"]
    assert "one complains" in shown.err


def test_the_stream_behaves_like_the_original_one() -> None:
    with keeping_prints(lambda data: None):
        assert isinstance(sys.stdout, logs._CopyingStream)
        assert sys.stdout.encoding == sys.__stdout__.encoding
        assert sys.stdout.isatty() == sys.__stdout__.isatty()
