"""What each route of the stand-in answers: as Crucible does, as far as the client uses it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

from tests.client.stub import Call, Refusal, Session, Stub, crc


def page(call: Call, items: list[Any]) -> dict[str, Any]:
    """Cursor style: the cursor is the number of the next item."""
    limit = int(call.query.get("limit", ["100"])[0])
    start = int(call.query.get("cursor", ["0"])[0])
    end = start + limit
    following = str(end) if end < len(items) else None
    return {"items": items[start:end], "limit": limit, "total": len(items), "next_cursor": following}


def offset_page(call: Call, items: list[Any]) -> dict[str, Any]:
    limit = int(call.query.get("limit", ["100"])[0])
    start = int(call.query.get("offset", ["0"])[0])
    return {"items": items[start : start + limit], "limit": limit, "total": len(items), "offset": start}


def create_dataset(stub: Stub, call: Call) -> Any:
    mfid = call.json["unique_id"]
    if mfid in stub.datasets:
        raise Refusal(409, "a dataset with this MFID exists")
    stub.datasets[mfid] = {**call.json, "resource_type": "dataset"}
    return stub.datasets[mfid]


def read_dataset(stub: Stub, call: Call, mfid: str) -> Any:
    return stub.dataset(mfid)


def list_datasets(stub: Stub, call: Call) -> Any:
    records = sorted(stub.datasets.values(), key=lambda record: record["unique_id"], reverse=True)
    return page(call, records)


def link(stub: Stub, call: Call, parent: str, child: str) -> Any:
    stub.children[parent, child] = call.query.get("relationship_type", [None])[0]
    return {"parent_id": parent, "child_id": child}


def unlink(stub: Stub, call: Call, parent: str, child: str) -> Any:
    if (parent, child) not in stub.children:
        raise Refusal(404, "no such link")
    del stub.children[parent, child]
    return {"detail": "unlinked"}


def add_thumbnail(stub: Stub, call: Call, mfid: str) -> Any:
    pictures = stub.thumbnails.setdefault(mfid, [])
    pictures.append({"id": len(pictures) + 1, "mime_type": "image/png", **call.json})
    return pictures[-1]


def initiate(stub: Stub, call: Call, dataset: str) -> Any:
    stub.dataset(dataset)
    if not stub.signed_uploads:
        raise Refusal(503, "New multipart uploads are disabled")
    body = call.json
    taken = stub.existing(dataset, body["filename"])
    if taken and (taken["sha256_hash"], taken["size"]) == (body["sha256_hash"], body["size"]):
        return {"upload_id": None, "state": "completed", "existing_file": taken}
    if taken:
        conflict = {"code": "filename_exists", "message": "Filename already exists"}
        raise Refusal(409, {**conflict, "file_mfid": taken["mfid"], "etag": taken["etag"]})
    return open_session(stub, call, Session(dataset, body["filename"], body["size"], body["sha256_hash"]))


def initiate_replacement(stub: Stub, call: Call, file: str) -> Any:
    record, body = stub.files[file], call.json
    if call.headers["if-match"] not in ("*", record["etag"]):
        raise Refusal(412, {"code": "etag_mismatch", "etag": record["etag"]})
    session = Session(record["dataset_mfid"], record["filename"], body["size"], body["sha256_hash"], replaces=file)
    return open_session(stub, call, session)


def open_session(stub: Stub, call: Call, session: Session) -> Any:
    key = call.headers["idempotency-key"]
    upload_id = stub._initiated.setdefault(key, f"upload-{len(stub.sessions) + 1}")
    stub.sessions.setdefault(upload_id, session)
    count = -(-session.size // stub.part_size)
    answer = {"upload_id": upload_id, "state": "uploading", "part_size": stub.part_size, "part_count": count}
    return {**answer, "parts": [], "existing_file": None}


def upload_status(stub: Stub, call: Call, dataset: str, upload_id: str) -> Any:
    if upload_id not in stub.sessions or stub.forgets_sessions:
        raise Refusal(404, "no such upload")
    numbers = sorted(stub.sessions[upload_id].parts)
    after = [n for n in numbers if n > int(call.query.get("part_number_marker", ["0"])[0])]
    marker = after[1] if len(after) > 2 else None  # two per page, so that paging is always tested
    shown = after[:2] if marker else after
    parts = [{"part_number": n} for n in shown]
    return {"upload_id": upload_id, "state": "uploading", "parts": parts, "next_part_number_marker": marker}


def sign_parts(stub: Stub, call: Call, dataset: str, upload_id: str) -> Any:
    session = stub.sessions[upload_id]
    requested = call.json["parts"]
    if not 1 <= len(requested) <= 32:
        raise Refusal(422, "1 to 32 parts")
    expires = time.gmtime(time.time() + stub.link_lifetime_s)
    parts = []
    for part in requested:
        offset = (part["part_number"] - 1) * stub.part_size
        size = min(stub.part_size, session.size - offset)
        parts.append(
            {
                "part_number": part["part_number"],
                "url": stub.sign(f"part/{upload_id}/{part['part_number']}"),
                "method": "PUT",
                "headers": {"x-goog-hash": f"crc32c={part['crc32c']}", "Content-Length": str(size)},
                "offset": offset,
                "size": size,
                "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", expires),
            }
        )
    return {"parts": parts}


def complete_signed(stub: Stub, call: Call, dataset: str) -> Any:
    session = stub.sessions[call.json["upload_id"]]
    content = b"".join(session.parts[number] for number in sorted(session.parts))
    if call.json["crc32c"] != crc(content):
        raise Refusal(422, "crc32c does not fit")
    return finish(stub, call, session, content)


def complete_plain(stub: Stub, call: Call, dataset: str) -> Any:
    session = stub.sessions[call.json["upload_id"]]
    return finish(stub, call, session, bytes(session.received))


def finish(stub: Stub, call: Call, session: Session, content: bytes) -> Any:
    if hashlib.sha256(content).hexdigest() != call.json["sha256_hash"] or len(content) != session.size:
        raise Refusal(422, "sha256 does not fit")
    if session.record is None:
        session.record = stub.add_file(session.dataset, session.filename, content, session.replaces)
    return session.record


def abort(stub: Stub, call: Call, dataset: str, upload_id: str) -> Any:
    del stub.sessions[upload_id]


def initiate_resumable(stub: Stub, call: Call, dataset: str) -> Any:
    body = call.json
    taken = stub.existing(dataset, body["filename"])
    if taken and taken["sha256_hash"] == body["sha256_hash"]:
        return {"existing_file": taken}
    upload_id = f"upload-{len(stub.sessions) + 1}"
    stub.sessions[upload_id] = Session(dataset, body["filename"], body["size"], body["sha256_hash"])
    uri = stub.sign(f"resumable/{upload_id}")
    return {"upload_id": upload_id, "resumable_uri": uri, "chunk_size_hint": 262144, "existing_file": None}


def request_ingestion(stub: Stub, call: Call, file: str) -> Any:
    entry = {
        "id": len(stub.requests) + 1,
        "status": call.query["status"][0],
        "file_mfid": file,
        "dataset_mfid": stub.files[file]["dataset_mfid"],
        "ingestion_class": call.query.get("ingestion_class", [None])[0],
        "time_created": "2026-03-01T10:00:00+00:00",
    }
    stub.requests.append(entry)
    return entry


def read_ingestion(stub: Stub, call: Call, number: str) -> Any:
    entry = stub.requests[int(number) - 1]
    polls = stub.polls[entry["id"]] = stub.polls.get(entry["id"], 0) + 1
    return {**entry, "status": stub.ingestion_states[min(polls, len(stub.ingestion_states)) - 1]}


def create_sample(stub: Stub, call: Call) -> Any:
    mfid = call.json.get("unique_id") or stub.new_id("s")
    stub.samples[mfid] = {**call.json, "unique_id": mfid, "resource_type": "sample"}
    return stub.samples[mfid]


ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("POST", "/datasets", create_dataset),
    ("GET", "/datasets", list_datasets),
    ("GET", "/datasets/ID", read_dataset),
    ("POST", "/datasets/ID/children/ID", link),
    ("DELETE", "/datasets/ID/children/ID", unlink),
    ("GET", "/datasets/ID/thumbnails", lambda stub, call, m: stub.thumbnails.get(m, [])),
    ("POST", "/datasets/ID/thumbnails", add_thumbnail),
    ("GET", "/datasets/ID/files", lambda stub, call, m: [f for f in stub.files.values() if f["dataset_mfid"] == m]),
    (
        "GET",
        "/datasets/ID/download_links",
        lambda stub, call, m: {f: stub.sign(f"object/{f}") for f, r in stub.files.items() if r["dataset_mfid"] == m},
    ),
    ("POST", "/datasets/ID/upload/multipart/initiate", initiate),
    ("GET", "/datasets/ID/upload/multipart/ID", upload_status),
    ("POST", "/datasets/ID/upload/multipart/ID/parts", sign_parts),
    ("POST", "/datasets/ID/upload/multipart/complete", complete_signed),
    ("DELETE", "/datasets/ID/upload/multipart/ID", abort),
    ("POST", "/files/ID/upload/multipart/initiate", initiate_replacement),
    ("POST", "/datasets/ID/upload/initiate", initiate_resumable),
    ("POST", "/datasets/ID/upload/complete", complete_plain),
    ("GET", "/files", lambda stub, call: offset_page(call, list(stub.files.values()))),
    ("GET", "/files/ID", lambda stub, call, f: stub.files[f]),
    ("GET", "/files/ID/download_link", lambda stub, call, f: {"url": stub.sign(f"moved/{f}"), "expires_in": 3600}),
    ("POST", "/files/ID/ingest", request_ingestion),
    ("GET", "/ingestion_requests/ID", read_ingestion),
    ("GET", "/ingestion_requests", lambda stub, call: offset_page(call, stub.requests)),
    ("POST", "/samples", create_sample),
    ("GET", "/samples/ID", lambda stub, call, m: stub.samples[m]),
]
