"""The gate for text that leaves: records, statements, logs, errors, the journal, pages, pictures, metrics, exports.

A secret is what `learn` received (keys, declared parameters, what blocks revealed), the value of an environment
variable that is named like one, user info in an address, a value that a text names (`password=...`), or a token of a
known kind. The patterns are our own: those of detect-secrets cost 0.2 s at import, take hashes and names of samples for
secrets, and lack the tokens of newer services.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

BLOT = "***"
LEAST_KNOWN = 6  # characters of a secret that is searched for everywhere; shorter ones occur in other texts
LEAST_GUESSED = 8  # chosen: characters of a value that only its name reveals
MIN_ENCODED = 4  # characters; encodings of shorter secrets occur everywhere
MOST_SHORT = 100  # chosen: characters of a text that may occur again
MOST_HELD_BYTES = 1 << 16  # of output without a line end
WAY_OUT = "read it from a Prefect secret block or an environment variable while the step runs"

_WORDS = (
    *("password", "passwd", "passphrase", "secret", "token", "credential", "authorization", "bearer", "auth_string"),
    *(f"{kind}_?key" for kind in ("api", "access", "private", "secret")),
)
_SPELT = tuple(sorted({word.replace("_?", between) for word in _WORDS for between in ("", "_", "-")}))
_NAME = re.compile(rf"(?:^|_)(?:{'|'.join(_WORDS)}|pwd)s?(?:_(?:old|new|value|string))?$", re.IGNORECASE)
_WEAK = re.compile(r"(?:secret|token|credential|bearer|pwd)s?$", re.IGNORECASE)  # may name other things
_IN_NAME = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]")  # between the words of a name
_OF_ENVIRONMENT = re.compile(r"_(?:key|pat)$", re.IGNORECASE)
_KEY_FILES = re.compile(
    r"(^\.env(\..*)?$|^id_(rsa|dsa|ecdsa|ed25519)|^\.?(netrc|pgpass|htpasswd)$|\.(pem|key|p12|pfx|jks|kdbx)$)", re.I
)

_ADDRESS = r"://(?P<who>[^\s/?#\"'`<>\\]{1,300})@(?!sha256:)"
_WEB = ("https", "http", "ftps")
_PLACEHOLDER = re.compile(r"(?:\{[^{}]*\})+|\*{3}|\$\{?\w+\}?|%(?:\(\w+\))?s|%\w+%")
_NAMED = (
    rf"(?:(?:{'|'.join(_SPELT)})s?|(?<=[?&])(?:x-(?:amz|goog)-)?(?:sig|signature|key))"
    r"[\"'\\]{0,2}\]?(?P<sign>\s{0,3}[=:]>?\s{0,3}|\s)(?:(?:bearer|basic|token)\s)?(?P<quoted>[\"'\\]{0,2})"
    r"(?P<value>[^\s\"'\\,;&<>(){}\[\]]{8,}+)(?![(\[{])"
)
_NAMED_HINTS = (*_SPELT, "signature=", "sig=", "key=")
_TOKENS = {  # literal beginnings, and what follows
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\w{36,}"),
    **dict.fromkeys(("AKIA", "ASIA", "ABIA", "ACCA"), r"[0-9A-Z]{16}\b"),
    **dict.fromkeys(("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-"), r"[\w-]{10,}"),
    **dict.fromkeys(("sk_live_", "rk_live_", "sk_test_", "rk_test_"), r"\w{16,}"),
    **dict.fromkeys(("sk-proj-", "sk-ant-", "sk-svcacct-", "glpat-", "ya29."), r"[\w-]{20,}"),
    **dict.fromkeys(("npm_", "pnu_", "hf_"), r"[A-Za-z0-9]{30,}"),
    **{"github_pat_": r"\w{22,}", "sk-": r"[A-Za-z0-9]{32,}", "pypi-AgE": r"[\w-]{40,}", "AIza": r"[\w-]{35}"},
    **{"SG.": r"[\w-]{16,}\.[\w-]{16,}", "eyJ": r"[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"},
    **{"AccountKey=": r"[\w+/=]{40,}", "hooks.slack.com/services/": r"[\w/]{20,}"},
}
_PEM = r"[A-Za-z0-9+/=\s\\:,.-]"
_END = r"-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----"
_PRIVATE = rf"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----{_PEM}{{16,}}?(?:{_END}|(?!{_PEM}))"
_ASSIGNED = r"(?:'?=|',(?:\),\],|\),annotation=Name\(id='\w+',\),)?value=)"
_IN_CODE = rf"(?P<name>{'|'.join(_WORDS)})s?{_ASSIGNED}str:'(?P<value>[^']+)'"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:  # on use, since it takes a while
    return re.compile(pattern, re.IGNORECASE)


class Redactor:
    """Masks these secrets in texts, as they are or encoded, and what looks like a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings = {form for secret in set(secrets) if secret for form in _spellings(secret)}
        self._texts = sorted(spellings, key=len, reverse=True)
        self._encoded = [text.encode(errors="surrogatepass") for text in self._texts]
        self.short_text = lru_cache(8192)(self.text)  # keys and versions, which occur in every record

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        for spelling in self._texts:  # faster than one pattern of all
            text = text.replace(spelling, BLOT)
        return _without_patterns(text)

    def data(self, data: bytes, *, last: bool = True) -> tuple[bytes, bytes]:
        """Return the bytes without secrets, and the rest, to be put before the next bytes.

        The rest is an unfinished line, or may be the beginning of a secret; it is empty for the `last` bytes.
        """
        redacted = data
        for spelling in self._encoded:
            redacted = redacted.replace(spelling, BLOT.encode())
        size = len(redacted) if last else self._sure(redacted)
        sure = redacted[:size].decode(errors="surrogateescape")
        masked_part = _without_patterns(sure)
        return redacted[:size] if masked_part == sure else masked_part.encode(errors="surrogateescape"), redacted[size:]

    def holds(self, data: bytes) -> bool:
        """Return whether there is a secret in these bytes."""
        return self.data(data)[0] != data

    def _sure(self, data: bytes) -> int:
        """Return how many of these bytes are followed by nothing that makes them a secret."""
        most = min(len(data), max(map(len, self._encoded), default=1) - 1)
        keep = next((size for size in range(most, 0, -1) if self._may_begin(data[-size:])), 0)
        lines = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        key = data.rfind(b"-----BEGIN ")
        is_open = key >= 0 and b"-----END " not in data[key:]
        size = min(len(data) - keep, lines, key if is_open else len(data))
        return size if len(data) - size <= MOST_HELD_BYTES else len(data) - keep

    def _may_begin(self, end: bytes) -> bool:
        return any(spelling.startswith(end) for spelling in self._encoded)


_lock = threading.Lock()
_known: set[str] = set()
_environment: object = None  # the one whose variables are known
_gate = Redactor()


def learn(secrets: Iterable[str | None] = ()) -> None:
    """Mask these secrets, and those of the environment as it is now, in every text of this process from now on."""
    global _environment, _gate
    environment = dict(getattr(os.environ, "_data", os.environ))  # decoding all takes as long as writing a result
    long = (secret for secret in secrets if secret and len(secret) >= LEAST_KNOWN)
    found = {secret for secret in long if not secret.replace(".", "").isdigit()}  # not a number
    with _lock:
        if environment != _environment:
            for name, value in os.environ.items():
                addresses = _compiled(_ADDRESS).finditer(value) if "://" in value else ()
                telling = [match["who"].partition(":")[2] for match in addresses]
                telling += [value] if is_secret_name(name) or _OF_ENVIRONMENT.search(name) else []
                found |= {  # no word, number, or path, which could not be searched for
                    text
                    for text in telling
                    if len(text) >= LEAST_GUESSED and not text.isalpha() and not text.isdigit() and text[0] not in "/~."
                }
            _environment = environment
        if found - _known:
            _known.update(found)
            _gate = Redactor(_known)


def redactor_of(more: Iterable[str] = ()) -> Redactor:
    """Return the mask of the secrets that this process knows, and of more."""
    learn()
    more = set(more) - _known
    return Redactor((*_known, *more)) if more else _gate


def is_known(secret: str) -> bool:
    """Return whether this process knows a text to be a secret."""
    return secret in _known


def masked_text(text: str) -> str:
    """Return the text without secrets."""
    if _environment is None:
        learn()
    return _gate.short_text(text) if len(text) <= MOST_SHORT else _gate.text(text)


def masked(value: Any, at: str = "", found: list[str] | None = None, *, by_name: bool = True) -> Any:
    """Return JSON without secrets; add the JSON Pointers of masked texts to `found`. The form of a digest stays.

    `by_name` masks texts under a key that names a secret.
    """
    if isinstance(value, str):
        text = masked_text(value)
        if text != value and found is not None:
            found.append(at)
        return text
    if isinstance(value, (dict, Mapping)):  # `dict` alone is recognized faster
        if value.keys() == {"secret"}:
            return value
        safe = {}
        for key, item in value.items():
            name = masked_text(str(key))
            if (named := by_name and isinstance(item, str) and is_secret(name, item)) and found is not None:
                found.append(f"{at}/{name}")
            safe[name] = BLOT if named else masked(item, f"{at}/{name}", found, by_name=by_name)
        return safe
    if isinstance(value, (list, tuple)):
        return [masked(item, f"{at}/{number}", found, by_name=by_name) for number, item in enumerate(value)]
    return value


def is_secret_name(name: str) -> bool:
    """Return whether the name of an argument, key or variable suggests a secret: password, token, apiKey."""
    return _NAME.search(_IN_NAME.sub("_", name)) is not None


def is_secret(name: str, text: str) -> bool:
    """Return whether a text of this name is a secret. A token may be a word; a password is one whatever it is."""
    is_named = bool(text) and is_secret_name(name) and not _PLACEHOLDER.fullmatch(text)
    return is_named and (not _WEAK.search(name) or _looks_secret(text))


def is_key_file(path: Path) -> bool:
    """Return whether a file contains keys or passwords, by its name or folder."""
    return _KEY_FILES.search(path.name) is not None or any(part in (".ssh", ".aws", ".gnupg") for part in path.parts)


def code_holds_secret(name: str, text: str) -> bool:
    """Return whether the description of a piece of code (see fingerprint/) has a secret as a constant."""
    named = _compiled(_IN_CODE).finditer(f"{name}={text.removeprefix('constant ')}")
    return masked_text(text) != text or any(is_secret(match["name"], match["value"]) for match in named)


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a secret value."""
    if hasattr(value, "get_secret_value"):
        yield from texts_in(value.get_secret_value())
    elif isinstance(value, (list, tuple, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(part)
    elif value is not None:
        yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _looks_secret(value: str) -> bool:
    if len(value) < LEAST_GUESSED or _PLACEHOLDER.match(value) or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        return False
    has_letter, has_digit = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    if "/" in value:  # a path, unless it is base64
        return len(value) >= 32 and has_letter and has_digit and value.lower() != value and "." not in value
    return has_letter and (has_digit or any(sign in value for sign in "!@#$%^*+=~"))


def _without_patterns(text: str) -> str:
    if "://" in text:
        text = _compiled(_ADDRESS).sub(_without_user, text)
    if "PRIVATE KEY" in text:
        text = _compiled(_PRIVATE).sub(BLOT, text)
    for start, rest in _TOKENS.items():
        if start in text:
            text = re.sub(re.escape(start) + rest, _without_token, text)
    lower = text.lower()
    for hint in _NAMED_HINTS:
        if hint in lower:
            return _compiled(_NAMED).sub(_without_value, text)
    return text


def _without_token(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1 : match.start()]
    return match[0] if before.isalnum() or before in ("_", "-") else BLOT


def _without_user(match: re.Match[str]) -> str:
    """Mask user info; not a placeholder, nor an account without a password, which only web addresses have as a key."""
    user, colon, password = match["who"].partition(":")
    scheme = match.string[max(0, match.start() - 9) : match.start()].lower()
    is_account = not colon and not scheme.endswith(_WEB)
    return match[0] if is_account or _PLACEHOLDER.fullmatch(password or user) else f"://{BLOT}@"


def _without_value(match: re.Match[str]) -> str:
    value, name = match["value"], match[0].lower()
    if not _looks_secret(value) or (name.startswith("secret") and re.fullmatch("[0-9a-f]{32}", value)):  # a digest
        return match[0]
    if match["sign"].isspace() and not name.startswith("bearer"):  # an option of a command
        if not re.search(r"--[\w-]*$", match.string[: match.start()][-40:]):
            return match[0]
    elif (
        not match["quoted"] and match["sign"].strip() == "=" != match["sign"] and re.fullmatch(r"[A-Za-z_]+\d*", value)
    ):
        return match[0]  # a variable
    return match[0][: match.start("value") - match.start()] + BLOT


def _spellings(secret: str) -> Iterable[str]:
    yield secret
    if len(secret) < MIN_ENCODED:
        return
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret))
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    yield repr(secret)[1:-1]
    raw = secret.encode(errors="surrogateescape")
    yield from (raw.hex(), raw.hex().upper())
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")
        for before in range(3):  # the parts that do not depend on the bytes around the secret, as in `user:secret`
            text = encode(bytes(before) + raw).decode().rstrip("=")
            certain = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
            if len(certain) >= MIN_ENCODED:
                yield certain
