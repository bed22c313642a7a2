"""The data of a lineage page, as its script reads them."""

from __future__ import annotations

import base64
import json
import re
import zlib


def page_data(page: str) -> dict[str, object]:
    """Return a page's data: nodes and edges as columns, and `details`, a record for each node or None."""
    match = re.search(r'id="data">([^<]*)<', page)
    assert match is not None
    data: dict[str, object] = json.loads(zlib.decompress(base64.b64decode(match[1])))
    return data
