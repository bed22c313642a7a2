"""Each task of the API in a flow, once for each of its requests, of which the answer to one is lost. Prints JSON.

A program: `losing_answers.py DATA URL KEY FILES STEP` loses every STEP-th answer, with a Prefect server.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from crucible_lineage import tasks
from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2]))
from proxy import Call, Proxy

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DATA, URL, KEY = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
FILES, STEP = Path(sys.argv[4]), int(sys.argv[5])


class Losing(Proxy):
    """A proxy that loses the answer to request number `loses` since the last `reset`, after the server acted."""

    seen: list[str]
    loses: int | None = None

    def reset(self, loses: int | None) -> None:
        self.seen, self.loses = [], loses

    def handle(self, call: Call) -> None:
        with self.lock:
            self.seen.append(f"{call.command} {call.path}")
            is_lost = len(self.seen) - 1 == self.loses
        answer = call.forward()
        call.drop() if is_lost else call.answer(*answer)


class Quick(Session):
    """A session whose client does not wait between two attempts."""

    def _connect(self) -> CrucibleClient:
        assert self.settings.api_url
        assert self.settings.api_key
        quick = RetryPolicy(first_wait_s=0.0)
        return CrucibleClient(self.settings.api_url, self.settings.api_key, retry=quick)


class Bench:
    """Fresh subjects for each trial, and their state in Crucible afterwards."""

    def __init__(self, direct: CrucibleClient) -> None:
        self.direct = direct
        self.number = 0

    def prepare(self) -> None:
        self.number += 1
        self.began = datetime.now(UTC)
        self.tag = f"trial-{self.number:04}"
        self.folder = FILES / self.tag
        self.folder.mkdir(parents=True)
        create = self.direct.datasets.create
        for role in ("subject", "parent"):
            made = create({"dataset_name": f"{self.tag} {role}", "project_id": "lab"}).dsid
            setattr(self, role, made)
            self.direct.files.upload(made, self.file(f"{role}.txt"))
        self.direct.datasets.link_parent_child(self.parent, self.subject)
        self.sample = self.direct.samples.create(sample_name=self.tag, project_id="lab").unique_id
        self.direct.datasets.add_sample(self.subject, self.sample)
        self.direct.metadata.merge(self.subject, {"temperature": 300})

    def file(self, name: str, text: str = "") -> Path:
        path = self.folder / name
        path.write_text(f"{self.tag} {name} {text}\n")
        return path

    def ingestion(self) -> int:
        """Return the number of a request to ingest the subject's file."""
        (file,) = self.direct.datasets.list_files(self.subject)
        return self.direct.ingestions.request(file.mfid).id

    def state(self) -> Any:
        """Return the resources of this trial by name, with ids replaced by names."""
        known = self.direct.datasets.list(
            limit=None, creation_time_gte=self.began, include_metadata=True, include_links=True
        )
        found = [dataset for dataset in known if self.tag in str(dataset.dataset_name).split()]
        samples = self.direct.samples.list(limit=None, creation_time_gte=self.began)
        names = {dataset.unique_id: str(dataset.dataset_name).replace(self.tag, "TAG") for dataset in found}
        state = []
        for dataset in found:
            mfid = dataset.unique_id
            metadata = dict(dataset.scientific_metadata or {})
            record = metadata.pop("crucible_lineage", {})
            links = [(link.resource_type, link.direction, link.unique_id) for link in dataset.links or ()]
            state.append(
                [
                    names[mfid],
                    dataset.measurement,
                    dataset.session_name,
                    metadata,
                    record.get("status"),
                    sorted(word.keyword for word in self.direct.datasets.get_keywords(mfid)),
                    sorted((file.filename, file.size) for file in self.direct.datasets.list_files(mfid)),
                    sorted(names[other] for kind, way, other in links if (kind, way) == ("dataset", "source")),
                    sum(kind == "sample" for kind, _, _ in links),
                    [shown.thumbnail_name for shown in self.direct.datasets.get_thumbnails(mfid)],
                    sorted(
                        self.direct.ingestions.wait(request.id).status if request.is_open else request.status
                        for request in self.direct.ingestions.list(dataset_mfid=mfid)
                    ),
                ]
            )
        asked = sum(request.resource_id == self.subject for request in self.direct.deletions.list(limit=None))
        mine = [sample for sample in samples if self.tag in str(sample.sample_name).split()]
        return [sorted(state, key=str), len(mine), asked]


def calls(b: Bench) -> dict[str, Callable[[Any], Any]]:
    """Return the calls of each task."""
    return {
        "create_dataset": lambda t: t(
            f"{b.tag} made",
            "lab",
            measurement="counting",
            scientific_metadata={"n": 1},
            keywords=["gold", "annealed"],
            files=[b.file("one.csv")],  # `add_files` has two
            parents=b.parent,
            samples=b.sample,
            wait_for_ingestion=True,
            on_failed_ingestion="warn",
        ),
        "get_dataset": lambda t: t(b.subject, True, True),
        "list_datasets": lambda t: t(dataset_name=f"{b.tag} subject"),
        "search_datasets": lambda t: t(f"{b.tag} subject"),
        "count_datasets": lambda t: t(dataset_name=f"{b.tag} subject"),
        "update_dataset": lambda t: t(b.subject, session_name="2026-12", public=True),
        "delete_dataset": lambda t: t(b.subject, "wrong"),
        "get_metadata": lambda t: t(b.subject),
        "update_metadata": lambda t: t(b.subject, {"deep": {"a": 1}}),
        "replace_metadata": lambda t: t(b.subject, {"only": 1}),
        "search_metadata": lambda t: t("temperature"),
        "add_keywords": lambda t: t(b.subject, ["gold", "silver"]),
        "get_keywords": lambda t: t(b.subject),
        "upload_file": lambda t: t(b.subject, b.file("subject.txt", "changed"), replace=True),
        "add_files": lambda t: t(
            b.subject, [b.file("a.csv"), b.file("b.csv")], wait_for_ingestion=True, on_failed_ingestion="warn"
        ),
        "list_files": lambda t: t(b.subject),
        "request_ingestion": lambda t: t(b.direct.datasets.list_files(b.parent)[0].mfid),
        "wait_for_ingestion": lambda t: t(b.ingestion(), on_failure="warn"),
        "download_dataset": lambda t: t(b.subject, b.folder / "copies"),
        "get_download_links": lambda t: t(b.subject),
        "link_parent_child": lambda t: t(b.subject, b.direct.datasets.create({"dataset_name": f"{b.tag} kid"}).dsid),
        "unlink": lambda t: t(b.parent, b.subject),
        "list_parents": lambda t: t(b.subject),
        "list_children": lambda t: t(b.parent),
        "create_sample": lambda t: t(f"{b.tag} wafer", "lab", sample_type="wafer"),
        "link_sample": lambda t: t(b.parent, b.sample),
        "unlink_sample": lambda t: t(b.subject, b.sample),
        "list_samples": lambda t: t(b.subject),
        "add_thumbnail": lambda t: t(b.subject, PICTURE, "shown.png"),
        "get_thumbnails": lambda t: t(b.subject),
        "register_child": lambda t: t(
            b.subject, b.file("averaged.csv"), dataset_name=f"{b.tag} averaged", keywords=["averaged"]
        ),
        "check_lineage": lambda t: t(b.subject, raise_on_error=False),
        "render_lineage": lambda t: t(b.subject),
        "ensure_project": lambda t: t("lab"),
        "list_projects": lambda t: t(),
    }


@flow(log_prints=False)
def every_task(bench: Any, proxy: Any, crucible: Any) -> dict[str, Any]:
    bench, proxy = bench.value, proxy.value
    answers: dict[str, Any] = {}
    for name in tasks.API_TASKS:
        task = getattr(tasks, name).with_options(retry_delay_seconds=0)

        def call(*args: Any, _task: Any = task, **kwargs: Any) -> Any:
            return _task(*args, **kwargs, crucible=crucible)

        outcomes = []
        requests = 1
        loses: int | None = None
        while loses is None or loses < requests:
            bench.prepare()
            tasks.session_for(crucible)._projects.clear()
            proxy.reset(loses)
            result = calls(bench)[name](call)
            if loses is None:
                requests = len(proxy.seen)
            proxy.reset(None)
            length = len(result) if isinstance(result, (list, dict)) else None
            outcomes.append([proxy.seen, type(result).__name__, length, bench.state()])
            loses = 0 if loses is None else loses + STEP
        differing = [number for number, outcome in enumerate(outcomes[1:]) if outcome[1:] != outcomes[0][1:]]
        shown = [outcomes[0][1:], *(outcomes[1 + number][1:] for number in differing[:1])]
        answers[name] = {"requests": requests, "differing": differing, "outcomes": shown if differing else []}
    return answers


class Kept:
    """A wrapper that passes a value through Prefect unchanged."""

    def __init__(self, value: Any) -> None:
        self.value = value


def main() -> None:
    direct = CrucibleClient(URL, KEY)
    proxy = Losing(URL.removeprefix("http://").partition("/")[0])
    url = f"http://127.0.0.1:{proxy.server_address[1]}/api/v3"
    lead = direct.account.whoami().user_unique_id
    direct.projects.create(project_id="lab", organization="local", project_lead=lead)
    with Quick(Settings(DATA, url, KEY)) as session:
        from crucible_lineage.tasks.sessions import share_session

        share_session(session)
        crucible = tasks.CrucibleConnection(data=str(DATA), api_url=url)
        answers = every_task.with_options(validate_parameters=False)(Kept(Bench(direct)), Kept(proxy), crucible)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
