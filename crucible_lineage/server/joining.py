"""Requests to join a project, as rows and as records."""

from __future__ import annotations

import sqlite3
from typing import Any

__all__ = ["JOIN_REQUESTS", "join_record"]

JOIN_REQUESTS = """SELECT join_request.*, project.slug AS group_name, requester.unique_id AS requester,
    reviewer.unique_id AS reviewer FROM join_request JOIN project ON project.id = join_request.project_id
    JOIN user AS requester ON requester.id = requester_id LEFT JOIN user AS reviewer ON reviewer.id = reviewer_id"""


def join_record(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "group_name": row["group_name"],
        "requester_id": row["requester"],
        "reason": row["reason"],
        "status": row["status"],
        "request_time": row["request_time"],
        "review_time": row["review_time"],
        "reviewer_id": row["reviewer"],
        "reviewer_notes": row["reviewer_notes"],
    }
