"""Shapes of Prefect's own examples, guides and recipes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from enum import Enum
from typing import Any

from bench import Lab, shape
from prefect import allow_failure, unmapped
from prefect.cache_policies import INPUTS
from prefect.futures import as_completed
from prefect.states import Completed, Failed
from prefect.transactions import transaction
from prefect.utilities.annotations import quote
from pydantic import BaseModel


@shape("fetch -> transform", "transform -> load", fast=True)
def extract_transform_load(lab: Lab) -> Any:
    @lab.task(retries=2)
    def fetch() -> list[dict[str, int]]:
        return [{"id": i, "stars": i * 10} for i in range(4)]

    @lab.task
    def transform(rows: list[dict[str, int]]) -> list[dict[str, int]]:
        return [row for row in rows if row["stars"] > 5]

    @lab.task
    def load(rows: list[dict[str, int]]) -> int:
        return len(rows)

    @lab.flow(log_prints=True)
    def etl() -> int:
        return load(transform(fetch()))

    return etl()


@shape(*["square -> total"] * 5, in_order=False, fast=True)
def mapped_and_reduced(lab: Lab) -> Any:
    @lab.task
    def square(n: int) -> int:
        return n * n

    @lab.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @lab.flow
    def mapping() -> int:
        return total(square.map(range(5)))

    return mapping()


@shape("base -> add", "base -> add", "base -> add", in_order=False)
def mapped_with_an_unmapped_future(lab: Lab) -> Any:
    @lab.task
    def base() -> int:
        return 100

    @lab.task
    def add(n: int, to: int) -> int:
        return n + to

    @lab.flow
    def mapping() -> list[int]:
        return add.map([1, 2, 3], to=unmapped(base.submit())).result()

    return mapping()


@shape("-> flaky")
def retried_until_it_works(lab: Lab) -> Any:
    tried = []

    @lab.task(retries=3, retry_delay_seconds=0.01)
    def flaky() -> dict[str, int]:
        tried.append(1)
        if len(tried) < 3:
            raise ConnectionError("503")
        return {"tries": len(tried)}

    @lab.flow
    def retrying() -> Any:
        return flaky()

    return retrying()


@shape("-> good", in_order=False)
def a_failing_task_fails_the_flow(lab: Lab) -> Any:
    @lab.task
    def good() -> list[int]:
        return [1, 2, 3]

    @lab.task
    def bad() -> int:
        raise ValueError("no beam")

    @lab.flow
    def failing() -> None:
        good()
        bad()

    return failing()


@shape("-> good", in_order=False)
def futures_returned_decide_the_state(lab: Lab) -> Any:
    @lab.task
    def good() -> list[int]:
        return [1, 2, 3]

    @lab.task
    def bad() -> int:
        raise ValueError("no beam")

    @lab.flow
    def mixed() -> Any:
        return [good.submit(), bad.submit()]

    return mixed(return_state=True).name


@shape("first -> second", in_order=False)
def states_are_given_back(lab: Lab) -> Any:
    @lab.task
    def first() -> list[int]:
        return [1, 2]

    @lab.task
    def second(values: list[int]) -> int:
        return sum(values)

    @lab.flow
    def stateful() -> Any:
        state = first(return_state=True)
        return [state.is_completed(), second(state.result())]

    return stateful()


@shape(in_order=False)
def a_task_gives_a_failed_state(lab: Lab) -> Any:
    @lab.task
    def check(value: int) -> Any:
        return Failed(message="too low") if value < 3 else Completed(message="fine")

    @lab.flow
    def checking() -> Any:
        return [check(2, return_state=True).message, check(5, return_state=True).message]

    return checking()


@shape("-> sink", "-> setup", in_order=False)
def waiting_without_data(lab: Lab) -> Any:
    order = []

    @lab.task
    def setup() -> list[str]:
        time.sleep(0.1)
        order.append("setup")
        return ["ready"]

    @lab.task
    def sink(name: str) -> str:
        order.append("sink")
        return name

    @lab.flow
    def ordered() -> Any:
        ready = setup.submit()
        sink.submit("x", wait_for=[ready]).wait()
        return order

    return ordered()


@shape("one -> three", in_order=False)
def a_failure_is_handed_on(lab: Lab) -> Any:
    @lab.task
    def one() -> list[int]:
        return [1, 2]

    @lab.task
    def two() -> int:
        raise ValueError("bad")

    @lab.task
    def three(values: list[int], failed: Any) -> int:
        return len(values)

    @lab.flow
    def handing() -> Any:
        return three.submit(one.submit(), allow_failure(two.submit())).result()

    return handing()


@shape(*["slow -> collect"] * 3, in_order=False)
def as_they_complete(lab: Lab) -> Any:
    @lab.task
    def slow(n: int) -> list[int]:
        time.sleep(n / 50)
        return [n, n + 1]

    @lab.task
    def collect(parts: list[list[int]]) -> int:
        return sum(sum(part) for part in parts)

    @lab.flow
    def completing() -> int:
        futures = [slow.submit(n) for n in (3, 1, 2)]
        return collect(sorted(future.result() for future in as_completed(futures)))

    return completing()


@shape("load -> clean", "clean -> mean", fast=True)
def an_async_flow(lab: Lab) -> Any:
    @lab.task
    async def load() -> list[float]:
        await asyncio.sleep(0.01)
        return [1.5, 2.5, 3.5]

    @lab.task
    async def clean(values: list[float]) -> list[float]:
        return [value for value in values if value > 2]

    @lab.task
    async def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    @lab.flow
    async def awaiting() -> float:
        return await mean(await clean(await load()))

    return asyncio.run(awaiting())


@shape(*["get -> merge"] * 3, in_order=False)
def gathered(lab: Lab) -> Any:
    @lab.task
    async def get(n: int) -> dict[str, int]:
        await asyncio.sleep(0.01)
        return {"n": n}

    @lab.task
    def merge(parts: list[dict[str, int]]) -> list[int]:
        return [part["n"] for part in parts]

    @lab.flow
    async def gathering() -> Any:
        return merge(await asyncio.gather(*[get(n) for n in range(3)]))

    return asyncio.run(gathering())


@shape("measure -> average", fast=True)
def a_subflow(lab: Lab) -> Any:
    @lab.task
    def measure() -> list[float]:
        return [1.5, 2.5]

    @lab.task
    def average(values: list[float]) -> float:
        return sum(values) / len(values)

    @lab.flow
    def child(values: list[float]) -> float:
        return average(values)

    @lab.flow
    def parent() -> float:
        return child(measure())

    return parent()


@shape("inner -> outer_task")
def a_subflow_that_returns(lab: Lab) -> Any:
    @lab.task
    def inner(n: int) -> dict[str, int]:
        return {"n": n}

    @lab.task
    def outer_task(found: dict[str, int]) -> int:
        return found["n"] + 1

    @lab.flow
    def child(n: int) -> dict[str, int]:
        return inner(n)

    @lab.flow
    def parent() -> int:
        return outer_task(child(4))

    return parent()


@shape("pages -> parse", "pages -> parse")
def pages_of_a_generator(lab: Lab) -> Any:
    @lab.task
    def pages() -> Iterator[dict[str, Any]]:
        yield {"page": 1, "items": [1, 2]}
        yield {"page": 2, "items": [3]}

    @lab.task
    def parse(page: dict[str, Any]) -> int:
        return len(page["items"])

    @lab.flow
    def paging() -> list[int]:
        return [parse(page) for page in pages()]

    return paging()


@shape("-> events", "-> events")
def an_async_generator(lab: Lab) -> Any:
    @lab.task
    async def events() -> AsyncIterator[dict[str, int]]:
        for n in range(2):
            yield {"event": n}

    @lab.flow
    async def listening() -> list[int]:
        return [event["event"] async for event in events()]

    return asyncio.run(listening())


@shape("-> double", "-> triple")
def tasks_within_tasks(lab: Lab) -> Any:
    @lab.task
    def double(n: int) -> list[int]:
        return [n, n]

    @lab.task
    def triple(n: int) -> int:
        return len(double(n)) * 3

    @lab.flow
    def nesting() -> int:
        return triple(5)

    return nesting()


@shape("-> add")
def a_task_without_a_flow(lab: Lab) -> Any:
    @lab.task
    def add(a: int, b: int) -> int:
        return a + b

    @lab.flow
    def adding() -> int:
        return add(1, b=2)

    return [adding(), add.fn(3, 4), add(5, 6)]


@shape("scale -> shift")
def methods_of_an_object(lab: Lab) -> Any:
    class Bench:
        gain = 2.0

        @lab.task
        def scale(self, values: list[float]) -> list[float]:
            return [value * self.gain for value in values]

        @staticmethod
        def helper(value: float) -> float:
            return value + 1

        def __repr__(self) -> str:
            return "Bench()"

    @lab.task
    def shift(values: list[float]) -> list[float]:
        return [Bench.helper(value) for value in values]

    @lab.flow
    def methods() -> list[float]:
        return shift(Bench().scale([1.0, 2.0]))

    return methods()


@shape("load -> show")
def static_and_class_methods(lab: Lab) -> Any:
    class Reader:
        @lab.task
        @staticmethod
        def load(n: int) -> list[int]:
            return list(range(n))

    @lab.task
    def show(values: list[int]) -> str:
        return ",".join(map(str, values))

    @lab.flow
    def reading() -> str:
        return show(Reader.load(3))

    return reading()


class Colour(Enum):
    RED = "red"


class Config(BaseModel):
    """The parameters of a flow, as a form."""

    rate: float = 0.5
    colour: Colour = Colour.RED
    names: list[str] = []


@shape("make -> apply")
def parameters_as_a_model(lab: Lab) -> Any:
    @lab.task
    def make(config: Config) -> list[float]:
        return [config.rate] * 3

    @lab.task
    def apply(values: list[float], config: Config) -> str:
        return f"{sum(values)} {config.colour.value}"

    @lab.flow
    def configured(config: Config) -> str:
        return apply(make(config), config)

    return configured(Config(names=["a"]))


@shape("-> ask", "-> ask")
def inputs_less_one_as_cache_key(lab: Lab) -> Any:
    ran = []

    @lab.task(cache_policy=INPUTS - "debug", persist_result=True)
    def ask(name: str, debug: bool) -> dict[str, Any]:
        ran.append(debug)
        return {"name": name, "debug": debug}

    @lab.flow
    def caching() -> Any:
        found = [ask(lab.key("a"), True)["debug"], ask(lab.key("a"), False)["debug"], ask(lab.key("b"), False)["debug"]]
        return [found, ran]

    return caching()


@shape(
    "-> after",
    "-> write",
    says=("the result of write stays registered, though its transaction was rolled back",),
    fast=True,
)
def a_transaction_that_is_rolled_back(lab: Lab) -> Any:
    undone = []

    @lab.task
    def write(name: str) -> dict[str, str]:
        return {"name": name}

    @write.on_rollback
    def undo(txn: Any) -> None:
        undone.append("undo")

    @lab.task
    def verify(found: dict[str, str]) -> None:
        raise ValueError("quality is too low")

    @lab.task
    def after() -> list[str]:
        return ["after"]

    @lab.flow
    def transacting() -> Any:
        try:
            with transaction():
                verify(write("x"))
        except ValueError as error:
            return [str(error), undone, after()]
        return None

    return transacting()


@shape("-> quiet")
def hooks_are_called(lab: Lab) -> Any:
    heard = []

    def note(task: Any, run: Any, state: Any) -> None:
        heard.append(state.name)

    @lab.task(on_completion=[note], on_failure=[note])
    def quiet(ok: bool) -> dict[str, bool]:
        if not ok:
            raise ValueError("no")
        return {"ok": ok}

    @lab.flow
    def hooked() -> Any:
        quiet(True)
        quiet(False, return_state=True)
        return heard

    return hooked()


@shape("make -> read_quoted")
def a_quoted_value(lab: Lab) -> Any:
    @lab.task
    def make() -> list[int]:
        return [1, 2, 3]

    @lab.task
    def read_quoted(values: list[int]) -> int:
        return len(values)

    @lab.flow
    def quoting() -> int:
        return read_quoted(quote(make()))

    return quoting()


@shape("-> named", "-> renamed")
def options_changed_at_the_call(lab: Lab) -> Any:
    @lab.task(name="named", task_run_name="run-{n}", tags=["a"])
    def work(n: int) -> list[int]:
        return [n]

    @lab.flow
    def optional() -> Any:
        other = work.with_options(name="renamed", retries=1)
        return [work(1), other(2), work.name, other.name, other.retries, sorted(work.tags)]

    return optional()


@shape("step -> step", "step -> step")
def a_value_that_goes_round(lab: Lab) -> Any:
    @lab.task
    def step(values: list[float]) -> list[float]:
        return [value / 2 for value in values] + [1.0]

    @lab.flow
    def looping() -> list[float]:
        values: list[float] = [8.0]
        for _ in range(3):
            values = step(values)
        return values

    return looping()


@shape("-> tell")
def prints_go_to_the_log(lab: Lab) -> Any:
    @lab.task(log_prints=True)
    def tell(text: str) -> str:
        print("telling", text)
        return text.upper()

    @lab.flow(log_prints=True)
    def printing() -> str:
        print("begin")
        return tell("word by word")

    return printing()
