"""A picture within the text, for terminals that show one: iTerm2 and its like, and kitty and its like.

Sources: iterm2.com/documentation-images.html; sw.kovidgoyal.net/kitty/graphics-protocol.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from crucible_lineage.cli.colour import is_lively

if TYPE_CHECKING:
    from crucible_lineage.client.models import Thumbnail

__all__ = ["inline_picture"]

ROWS = 14  # of text, that the picture is high
CHUNK = 4096  # characters of base64 in one command of kitty's protocol
LARGEST = 4_000_000  # characters of base64
PNG = b"\x89PNG\r\n\x1a\n"


def inline_picture(thumbnails: Callable[[], Iterable[Thumbnail]]) -> str:
    """Return the escape sequence that shows the dataset's picture; empty, with nothing read, where none can."""
    protocol = _protocol()
    if protocol is None or not is_lively(sys.stdout):
        return ""
    for thumbnail in thumbnails():
        content = _checked(thumbnail.thumbnail_b64str or "")
        if content and (protocol is _iterm or base64.b64decode(content[:12])[:8] == PNG):
            return protocol(content)
    return ""


def _protocol() -> Callable[[str], str] | None:
    program, term = os.environ.get("TERM_PROGRAM", ""), os.environ.get("TERM", "")
    if os.environ.get("TMUX") or term.startswith(("screen", "tmux")):
        return None  # they pass nothing through unless they are told to
    if "kitty" in term or os.environ.get("KITTY_WINDOW_ID") or program in ("ghostty",):
        return _kitty
    return _iterm if program in ("iTerm.app", "WezTerm", "vscode", "mintty") else None


def _checked(content: str) -> str:
    """Base64 and nothing else, so that no terminal obeys what somebody put into a picture; empty if it is not."""
    try:
        return base64.b64encode(base64.b64decode(content, validate=True)).decode() if len(content) < LARGEST else ""
    except ValueError:
        return ""


def _iterm(content: str) -> str:
    return f"\x1b]1337;File=inline=1;height={ROWS};preserveAspectRatio=1:{content}\x07"


def _kitty(content: str) -> str:
    parts = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    control = [f"a=T,f=100,r={ROWS}," if at == 0 else "" for at in range(len(parts))]
    more = [f"m={int(at + 1 < len(parts))}" for at in range(len(parts))]
    return "".join(f"\x1b_G{head}{m};{part}\x1b\\" for head, m, part in zip(control, more, parts, strict=True))
