"""A small Google Cloud Storage stand-in for tests: stdlib HTTP server + google-crc32c.

Speaks the JSON API, resumable sessions (308 / probe / Content-Range / cancel),
the XML API with multipart uploads, preconditions, range reads, compose, rewrite,
batch, and V4 signed URLs (HMAC and RSA, expiry and signature really checked).
Runs in-process (`with FakeGcs() as g: g.url`) or as `python gcsfake.py --port N`.
Faults are injected with `g.fault(...)` or POST /_fake/fault.
"""

# ruff: noqa
# fmt: off
from __future__ import annotations

import argparse, base64, contextlib, dataclasses, datetime as dt, fnmatch, hashlib, hmac, json, os, re, shutil
import socket, socketserver, struct, sys, tempfile, threading, time, uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import google_crc32c

K256 = 256 * 1024
BUF = 1 << 20
NS = "http://s3.amazonaws.com/doc/2006-03-01/"


def b64crc(value: int) -> str:
    return base64.b64encode(struct.pack(">I", value)).decode()


def now() -> str:
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class ApiError(Exception):
    def __init__(self, status: int, message: str, reason: str = "invalid", code: str = "InvalidArgument"):
        super().__init__(message)
        self.status, self.message, self.reason, self.code = status, message, reason, code


class Dropped(Exception):
    """The connection is to be cut without (or in the middle of) a response."""


@dataclasses.dataclass
class Fault:
    """Matches `method` and `path` (regex on the raw target). Used `times` times after `skip` matches.

    action: status  answer `status` (body is drained first)
            reset   read `bytes` of the body, then RST the connection
            lost    do the work, then RST instead of answering
            stall   sleep `seconds` before working
            cut     send `bytes` of a download body, then RST
            corrupt flip the first byte of what is stored
    """
    action: str = "status"
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    skip: int = 0
    status: int = 503
    bytes: int = 0
    seconds: float = 0.0
    headers: dict = dataclasses.field(default_factory=dict)
    body: str = ""
    hits: int = 0


class Body:
    """Streams a request body to a file, hashing on the way."""

    def __init__(self, want_md5: bool):
        self.crc, self.size = 0, 0
        self.md5 = hashlib.md5() if want_md5 else None

    def feed(self, data):
        self.crc = google_crc32c.extend(self.crc, bytes(data) if not isinstance(data, bytes) else data)
        self.size += len(data)
        if self.md5:
            self.md5.update(data)


class FakeGcs:
    def __init__(self, root=None, host="127.0.0.1", port=0, *, md5=True, min_part_size=5 << 20,
                 tokens=None, require_signature=False, gap_status=503, buckets=()):
        self._tmp = None if root else tempfile.TemporaryDirectory(prefix="gcsfake-")
        self.root = Path(root or self._tmp.name)
        self.md5, self.min_part_size, self.gap_status = md5, min_part_size, gap_status
        self.tokens = None if tokens is None else set(tokens)   # accepted bearer tokens; None = any or none
        self.require_signature = require_signature      # XML object requests must be signed or carry a token
        self.hmac_keys = {"GOOGFAKEKEY": "fake-secret"}  # access id -> secret
        self.signers = {}                                # service-account e-mail -> PEM public key
        self.faults: list[Fault] = []
        self.requests: list[tuple] = []                  # (method, target, status, request bytes)
        self.lock = threading.RLock()
        self.buckets: dict[str, dict] = {}
        self.objects: dict[str, dict[str, dict]] = {}
        self.sessions: dict[str, dict] = {}
        self.mpu: dict[str, dict] = {}
        self._last_gen = 0
        for d in ("data", "meta", "sess", "mpu"):
            (self.root / d).mkdir(parents=True, exist_ok=True)
        self._load()
        for b in buckets:
            self.make_bucket(b)
        self.server = _Server((host, port), _Handler)
        self.server.fake = self
        self.host, self.port = self.server.server_address[:2]
        self.url = f"http://{self.host}:{self.port}"

    # -- life cycle
    def start(self):
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        if self._tmp:
            self._tmp.cleanup()

    __enter__ = start

    def __exit__(self, *exc):
        self.stop()

    def _load(self):
        for p in (self.root / "meta").glob("*.json"):
            d = json.loads(p.read_text())
            if d["kind"] == "storage#bucket":
                self.buckets[d["name"]] = d
                self.objects.setdefault(d["name"], {})
            else:
                self.objects.setdefault(d["bucket"], {})[d["name"]] = d
        for p in (self.root / "sess").glob("*.json"):
            d = json.loads(p.read_text())
            self.sessions[d["id"]] = d
        for p in (self.root / "mpu").glob("*/upload.json"):
            d = json.loads(p.read_text())
            d["parts"] = {int(k): v for k, v in d["parts"].items()}
            self.mpu[d["id"]] = d

    # -- helpers for tests
    def vend_token(self) -> str:
        token = "fake-" + uuid.uuid4().hex
        if self.tokens is not None:
            self.tokens.add(token)
        return token

    def service_account_info(self, project="fake-project") -> dict:
        """A service-account key (throw-away RSA key) whose token_uri is this server; needs `cryptography`."""
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import rsa
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        email = f"fake@{project}.iam.gserviceaccount.com"
        self.signers[email] = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode()
        return {"type": "service_account", "project_id": project, "client_email": email, "client_id": "1", "private_key_id": "1",
                "private_key": key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode(), "token_uri": self.url + "/token"}

    def make_bucket(self, name: str, **extra) -> dict:
        with self.lock:
            if name not in self.buckets:
                b = {"kind": "storage#bucket", "id": name, "name": name, "projectNumber": "1", "metageneration": "1",
                     "location": "US", "storageClass": "STANDARD", "etag": "CAE=", "timeCreated": now(),
                     "updated": now(), "locationType": "multi-region", **extra}
                self.buckets[name] = b
                self.objects.setdefault(name, {})
                self._save_meta(b, "b-" + name)
            return self.buckets[name]

    def fault(self, action="status", **kw) -> Fault:
        f = Fault(action=action, **kw)
        with self.lock:
            self.faults.append(f)
        return f

    def put(self, bucket: str, name: str, data: bytes, **meta) -> dict:
        body = Body(self.md5)
        body.feed(data)
        tmp = self.tmpfile()
        tmp.write_bytes(data)
        return self.commit(bucket, name, tmp, body, meta)

    def get(self, bucket: str, name: str) -> bytes:
        return self.path_of(self.objects[bucket][name]).read_bytes()

    def sign(self, method: str, bucket: str, name: str = "", *, query=None, headers=None, expires=3600,
             key_id="GOOGFAKEKEY", when=None) -> str:
        """A V4 signed URL (GOOG4-HMAC-SHA256) for this server; `headers` must then be sent as given."""
        when = when or dt.datetime.now(dt.timezone.utc)
        stamp, day = when.strftime("%Y%m%dT%H%M%SZ"), when.strftime("%Y%m%d")
        scope = f"{day}/auto/storage/goog4_request"
        hdrs = {k.lower(): v for k, v in (headers or {}).items()} | {"host": f"{self.host}:{self.port}"}
        signed = ";".join(sorted(hdrs))
        q = {**(query or {}), "X-Goog-Algorithm": "GOOG4-HMAC-SHA256", "X-Goog-Credential": f"{key_id}/{scope}",
             "X-Goog-Date": stamp, "X-Goog-Expires": str(expires), "X-Goog-SignedHeaders": signed}
        path = f"/{bucket}" + (f"/{quote(name, safe='/~')}" if name else "")
        to_sign = _string_to_sign(method, path, q, hdrs, signed, "GOOG4-HMAC-SHA256", stamp, scope)
        sig = _hmac_sign(self.hmac_keys[key_id], day, to_sign).hex()
        return f"{self.url}{path}?{_canonical_query(q)}&X-Goog-Signature={sig}"

    def verify(self, method, path, query, headers):
        alg, cred = query["X-Goog-Algorithm"], query["X-Goog-Credential"]
        access, scope = cred.split("/", 1)
        stamp, signed = query["X-Goog-Date"], query["X-Goog-SignedHeaders"]
        try:
            t0 = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.timezone.utc)
        except ValueError:
            raise ApiError(400, "bad X-Goog-Date")
        if dt.datetime.now(dt.timezone.utc) > t0 + dt.timedelta(seconds=int(query["X-Goog-Expires"])):
            raise ApiError(400, "The provided token has expired.", code="ExpiredToken")
        hdrs = {h: (headers.get(h) or "") for h in signed.split(";")}
        q = {k: v for k, v in query.items() if k != "X-Goog-Signature"}
        to_sign = _string_to_sign(method, path, q, hdrs, signed, alg, stamp, scope,
                                  headers.get("x-goog-content-sha256") if "x-goog-content-sha256" in hdrs else None)
        sig = bytes.fromhex(query.get("X-Goog-Signature", "")) if re.fullmatch("[0-9a-fA-F]+", query.get("X-Goog-Signature", "")) else b""
        ok = False
        if alg == "GOOG4-HMAC-SHA256" and access in self.hmac_keys:
            ok = hmac.compare_digest(sig, _hmac_sign(self.hmac_keys[access], scope.split("/")[0], to_sign))
        elif alg == "GOOG4-RSA-SHA256" and access in self.signers:
            from cryptography.hazmat.primitives import hashes, serialization
            from cryptography.hazmat.primitives.asymmetric import padding
            key = serialization.load_pem_public_key(self.signers[access].encode())
            with contextlib.suppress(Exception):
                key.verify(sig, to_sign.encode(), padding.PKCS1v15(), hashes.SHA256())
                ok = True
        if not ok:
            raise ApiError(403, "Access denied.", code="SignatureDoesNotMatch")

    # -- storage
    def tmpfile(self) -> Path:
        return self.root / "data" / f"tmp-{uuid.uuid4().hex}"

    def path_of(self, obj: dict) -> Path:
        return self.root / "data" / obj["_file"]

    def _save_meta(self, d: dict, key: str):
        p = self.root / "meta" / (hashlib.sha256(key.encode()).hexdigest()[:40] + ".json")
        t = p.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
        t.write_text(json.dumps(d))
        os.replace(t, p)

    def generation(self) -> str:
        g = max(int(time.time() * 1e6), self._last_gen + 1)
        self._last_gen = g
        return str(g)

    def bucket(self, name: str) -> dict:
        try:
            return self.buckets[name]
        except KeyError:
            raise ApiError(404, "The specified bucket does not exist.", "notFound", "NoSuchBucket")

    def object(self, bucket: str, name: str, generation=None) -> dict:
        self.bucket(bucket)
        o = self.objects[bucket].get(name)
        if o is None or (generation and generation != o["generation"]):
            raise ApiError(404, f"No such object: {bucket}/{name}", "notFound", "NoSuchKey")
        return o

    def check(self, bucket: str, name: str, cond: dict):
        o = self.objects.get(bucket, {}).get(name)
        gen, meta = (o["generation"], o["metageneration"]) if o else ("0", "0")
        failed = ApiError(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet", "PreconditionFailed")
        if cond.get("gen") is not None and cond["gen"] != gen:
            raise failed
        if cond.get("meta") is not None and cond["meta"] != meta:
            raise failed
        if cond.get("notgen") is not None and cond["notgen"] == gen:
            raise ApiError(304, "Not modified") if cond.get("read") else failed
        if cond.get("notmeta") is not None and cond["notmeta"] == meta:
            raise ApiError(304, "Not modified") if cond.get("read") else failed

    @staticmethod
    def check_hash(body: Body, want: dict):
        if want.get("crc32c") and want["crc32c"] != b64crc(body.crc):
            raise ApiError(400, f"Provided CRC32C \"{want['crc32c']}\" doesn't match calculated CRC32C \"{b64crc(body.crc)}\".", code="BadDigest")
        if want.get("md5") and body.md5 and want["md5"] != base64.b64encode(body.md5.digest()).decode():
            raise ApiError(400, f"Provided MD5 hash \"{want['md5']}\" doesn't match calculated MD5 hash.", code="BadDigest")

    def commit(self, bucket, name, tmp: Path, body: Body, meta: dict, cond=None, want=None, components=None) -> dict:
        want = {"crc32c": meta.get("crc32c"), "md5": meta.get("md5Hash"), **(want or {})}
        try:
            self.check_hash(body, want)
            with self.lock:
                self.bucket(bucket)
                self.check(bucket, name, cond or {})
                gen = self.generation()
                old = self.objects[bucket].get(name)
                o = {"kind": "storage#object", "id": f"{bucket}/{name}/{gen}", "name": name, "bucket": bucket,
                     "generation": gen, "metageneration": "1", "contentType": meta.get("contentType") or "application/octet-stream",
                     "storageClass": "STANDARD", "size": str(body.size), "crc32c": b64crc(body.crc),
                     "etag": base64.b64encode(gen.encode()).decode(), "timeCreated": now(), "updated": now(),
                     "timeStorageClassUpdated": now(),
                     "selfLink": f"{self.url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}",
                     "mediaLink": f"{self.url}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}?generation={gen}&alt=media"}
                if components:
                    o["componentCount"] = components
                elif body.md5:
                    o["md5Hash"] = base64.b64encode(body.md5.digest()).decode()
                for k in ("metadata", "cacheControl", "contentEncoding", "contentDisposition", "contentLanguage", "customTime"):
                    if meta.get(k):
                        o[k] = meta[k]
                o["_file"] = hashlib.sha256(f"{bucket}/{name}".encode()).hexdigest()[:40] + "." + gen
                os.replace(tmp, self.path_of(o))
                self.objects[bucket][name] = o
                self._save_meta(o, f"o-{bucket}/{name}")
                if old:
                    with contextlib.suppress(OSError):
                        os.unlink(self.path_of(old))
                return o
        finally:
            with contextlib.suppress(OSError):
                os.unlink(tmp)

    def delete(self, bucket, name):
        o = self.objects[bucket].pop(name)
        for p in (self.path_of(o), self.root / "meta" / (hashlib.sha256(f"o-{bucket}/{name}".encode()).hexdigest()[:40] + ".json")):
            with contextlib.suppress(OSError):
                os.unlink(p)

    def save_session(self, s):
        (self.root / "sess" / f"{s['id']}.json").write_text(json.dumps({k: v for k, v in s.items() if k != "lock"}))

    def save_mpu(self, u):
        (self.root / "mpu" / u["id"] / "upload.json").write_text(json.dumps(u))

    def list(self, bucket, q) -> dict:
        self.bucket(bucket)
        prefix, delim = q.get("prefix", ""), q.get("delimiter", "")
        limit = min(int(q.get("maxResults") or q.get("max-keys") or 1000), 1000)
        after = base64.urlsafe_b64decode(q["pageToken"]).decode() if q.get("pageToken") else None
        glob = re.compile(_glob(q["matchGlob"])) if q.get("matchGlob") else None
        items, prefixes, token, n = [], [], None, 0
        last = None
        for name in sorted(self.objects[bucket], key=lambda s: s.encode()):
            if not name.startswith(prefix) or (q.get("startOffset") and name < q["startOffset"]) or (q.get("endOffset") and name >= q["endOffset"]):
                continue
            if glob and not glob.fullmatch(name):
                continue
            entry, is_prefix = name, False
            if delim and delim in name[len(prefix):]:
                entry, is_prefix = prefix + name[len(prefix):].split(delim)[0] + delim, True
            if after is not None and (name <= after or entry == after):
                continue
            if is_prefix and prefixes and prefixes[-1] == entry:
                continue
            if n >= limit:
                token = base64.urlsafe_b64encode(last.encode()).decode()
                break
            n, last = n + 1, entry
            prefixes.append(entry) if is_prefix else items.append(self.objects[bucket][name])
        return {"items": items, "prefixes": prefixes, "token": token}


def _glob(g: str) -> str:
    out, i = "", 0
    while i < len(g):
        if g.startswith("**", i):
            out, i = out + ".*", i + 2
            continue
        c = g[i]
        out += "[^/]*" if c == "*" else "[^/]" if c == "?" else "(?:" if c == "{" else ")" if c == "}" else "|" if c == "," else c if c in "[]" else re.escape(c)
        i += 1
    return out


def _canonical_query(q: dict) -> str:
    return "&".join(f"{quote(k, safe='-_.~')}={quote(str(v), safe='-_.~')}" for k, v in sorted(q.items()))


def _string_to_sign(method, path, q, hdrs, signed, alg, stamp, scope, payload=None) -> str:
    canon = "\n".join([method, path, _canonical_query(q), *(f"{h}:{' '.join(str(hdrs[h]).split())}" for h in signed.split(";")), "", signed, payload or "UNSIGNED-PAYLOAD"])
    return "\n".join([alg, stamp, scope, hashlib.sha256(canon.encode()).hexdigest()])


def _hmac_sign(secret: str, day: str, to_sign: str) -> bytes:
    k = ("GOOG4" + secret).encode()
    for step in (day, "auto", "storage", "goog4_request", to_sign):
        k = hmac.new(k, step.encode(), hashlib.sha256).digest()
    return k


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True

    def log_message(self, *a):
        pass

    # -- body
    def chunks(self, buf=None):
        """Yield memoryviews of the request body; sets self.short when the peer went away."""
        self.short = False
        if "chunked" in (self.headers.get("transfer-encoding") or "").lower():
            while True:
                n = int(self.rfile.readline().split(b";")[0] or b"0", 16)
                if n == 0:
                    while self.rfile.readline().strip():
                        pass
                    self.left = 0
                    return
                yield memoryview(self.rfile.read(n))
                self.rfile.readline()
        mv = memoryview(buf or bytearray(min(BUF, max(self.left, 1))))
        while self.left:
            try:
                n = self.rfile.readinto1(mv[:min(len(mv), self.left, self.reset_after - self.got if self.reset_after else self.left)])
            except (ConnectionError, TimeoutError):
                n = 0
            if not n:
                self.short = True
                self.left = 0
                return
            self.left -= n
            self.got += n
            if self.reset_after is not None and self.got >= self.reset_after:
                self.short = True
                yield mv[:n]
                raise Dropped
            yield mv[:n]

    def body(self) -> bytes:
        return b"".join(bytes(c) for c in self.chunks())

    def save(self, path: Path, body: Body, mode="wb", skip=0, limit=None):
        """Stream the body into `path` past `skip` bytes, keeping at most `limit`."""
        flip = self.corrupt
        with open(path, mode, buffering=0) as f:
            for c in self.chunks():
                if skip:
                    c, skip = c[skip:], max(0, skip - len(c))
                if limit is not None:
                    c = c[:max(0, limit - body.size)]
                if len(c):
                    if flip:
                        c, flip = memoryview(bytes([c[0] ^ 1]) + bytes(c[1:])), False
                    body.feed(c)
                    f.write(c)
        if self.short:
            raise Dropped
        return body

    # -- response
    def reply(self, status=200, data=b"", headers=(), ctype="application/json; charset=UTF-8"):
        if self.lost:
            raise Dropped
        if isinstance(data, (dict, list)):
            data = json.dumps(_public(data)).encode()
        elif isinstance(data, str):
            data = data.encode()
        self.status = status
        self.send_response(status)
        for k, v in dict(headers).items():
            self.send_header(k, v)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
            if data:
                self.send_header("Content-Type", ctype)
        self.end_headers()
        if self.command != "HEAD" and data and status not in (204, 304):
            self.wfile.write(data)

    def xml(self, status, root, inner):
        self.reply(status, f"<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='{NS}'>{inner}</{root}>", ctype="application/xml; charset=UTF-8")

    def error(self, e: ApiError):
        if e.status in (304,):
            return self.reply(304)
        if self.is_json:
            self.reply(e.status, {"error": {"code": e.status, "message": e.message, "errors": [{"message": e.message, "domain": "global", "reason": e.reason}]}})
        else:
            self.reply(e.status, f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{e.code}</Code><Message>{escape(e.message)}</Message><Details>{escape(e.message)}</Details></Error>", ctype="application/xml; charset=UTF-8")

    def rst(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.connection = None

    def finish(self):
        if self.connection is not None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

    def do(self):
        g: FakeGcs = self.server.fake
        self.g = g
        self.left = int(self.headers.get("content-length") or 0)
        self.got, self.lost, self.reset_after, self.corrupt, self.cut, self.status = 0, False, None, False, None, 0
        u = urlsplit(self.path)
        self.raw_path, self.q = u.path, dict(parse_qsl(u.query, keep_blank_values=True))
        self.is_json = bool(re.match(r"/(storage/v1|upload/storage|download/storage|resumable/upload|batch/)", u.path))
        size = self.left
        try:
            f = self._pick_fault(g)
            if f:
                if f.action == "stall":
                    time.sleep(f.seconds)
                elif f.action == "reset":
                    self.reset_after = f.bytes
                    if not f.bytes:
                        raise Dropped
                elif f.action == "lost":
                    self.lost = True
                elif f.action == "cut":
                    self.cut = f.bytes
                elif f.action == "corrupt":
                    self.corrupt = True
                else:
                    for _ in self.chunks():
                        pass
                    return self.reply(f.status, f.body or {"error": {"code": f.status, "message": "injected"}}, f.headers)
            self.route()
        except ApiError as e:
            for _ in self.chunks():
                pass
            with contextlib.suppress(Dropped):
                return self.error(e)
            self.rst()
        except (Dropped, ConnectionError, TimeoutError):
            self.status = self.status or -1
            self.rst()
        finally:
            g.requests.append((self.command, self.path, self.status, size))

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = do

    def _pick_fault(self, g):
        with g.lock:
            for f in g.faults:
                if f.times > 0 and re.fullmatch(f.method, self.command) and re.search(f.path, self.path):
                    if f.skip > 0:
                        f.skip -= 1
                        continue
                    f.times -= 1
                    f.hits += 1
                    return f

    def cond(self, read=False):
        if self.is_json:
            q = self.q
            return {"gen": q.get("ifGenerationMatch"), "meta": q.get("ifMetagenerationMatch"), "notgen": q.get("ifGenerationNotMatch"), "notmeta": q.get("ifMetagenerationNotMatch"), "read": read}
        h = self.headers
        return {"gen": h.get("x-goog-if-generation-match"), "meta": h.get("x-goog-if-metageneration-match"), "read": read}

    def want_hash(self):
        out = {}
        for part in ",".join(self.headers.get_all("x-goog-hash") or []).split(","):
            k, _, v = part.strip().partition("=")
            if k in ("crc32c", "md5") and v:
                out[k] = v
        if self.headers.get("content-md5"):
            out["md5"] = self.headers["content-md5"]
        return out

    def xml_meta(self):
        h = self.headers
        m = {k[12:].lower(): v for k, v in h.items() if k.lower().startswith("x-goog-meta-")}
        return {"contentType": h.get("content-type"), "cacheControl": h.get("cache-control"), "contentEncoding": h.get("content-encoding"), "metadata": m or None}

    def auth(self):
        g = self.g
        if "X-Goog-Signature" in self.q or "X-Goog-Algorithm" in self.q:
            g.verify(self.command, self.raw_path, self.q, self.headers)
            return
        if "upload_id" in self.q and self.command in ("PUT", "POST", "DELETE"):
            return                                          # the session URI is the capability
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if g.tokens is not None and token not in g.tokens:
            raise ApiError(401, "Invalid Credentials", "authError", "AuthenticationRequired")
        if g.require_signature and not self.is_json and not token:
            raise ApiError(403, "Access denied.", "forbidden", "AccessDenied")

    # -- routing
    def route(self):
        p, m = self.raw_path, self.command
        if p.startswith("/_fake/"):
            return self.admin(p[7:])
        if p == "/token":                                   # token_uri for dummy service-account keys
            self.body()
            return self.reply(200, {"access_token": self.g.vend_token(), "expires_in": 3600, "token_type": "Bearer"})
        self.auth()
        if p.startswith("/batch/"):
            return self.batch()
        if r := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o/?", p):
            b = unquote(r[1])
            return self.session(self.q["upload_id"]) if "upload_id" in self.q else self.upload(b)
        if r := re.fullmatch(r"/storage/v1/b/?", p):
            return self.buckets()
        if r := re.fullmatch(r"/storage/v1/b/([^/]+)(/iam|/storageLayout)?", p):
            return self.one_bucket(unquote(r[1]), r[2])
        if r := re.fullmatch(r"/storage/v1/b/([^/]+)/o/?", p):
            return self.list_json(unquote(r[1]))
        if r := re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)/(rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)", p):
            return self.rewrite(*(unquote(r[i]) for i in (1, 2, 4, 5)), r[3])
        if r := re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)/compose", p):
            return self.compose(unquote(r[1]), unquote(r[2]))
        if r := re.fullmatch(r"/(?:download/)?storage/v1/b/([^/]+)/o/(.+)", p):
            return self.object_json(unquote(r[1]), unquote(r[2]))
        if self.is_json:
            raise ApiError(404, "Not Found", "notFound")
        if r := re.fullmatch(r"/([^/]+)/?", p):
            return self.xml_bucket(unquote(r[1]))
        if r := re.fullmatch(r"/([^/]+)/(.+)", p):
            return self.xml_object(unquote(r[1]), unquote(r[2]))
        self.reply(200, {})

    def admin(self, what):
        g, d = self.g, json.loads(self.body() or b"{}")
        if what == "fault":
            g.fault(**d)
        elif what == "signer":
            g.signers[d["email"]] = d["public_key"]
        elif what == "requests":
            return self.reply(200, {"requests": g.requests})
        elif what == "reset":
            g.faults.clear()
            g.requests.clear()
        else:
            raise ApiError(404, "no such admin call")
        self.reply(200, {"ok": True})

    # -- JSON API
    def buckets(self):
        g = self.g
        if self.command == "GET":
            return self.reply(200, {"kind": "storage#buckets", "items": [b for n, b in sorted(g.buckets.items()) if n.startswith(self.q.get("prefix", ""))]})
        d = json.loads(self.body() or b"{}")
        with g.lock:
            if d.get("name") in g.buckets:
                raise ApiError(409, "Your previous request to create the named bucket succeeded and you already own it.", "conflict")
            self.reply(200, g.make_bucket(**d))

    def one_bucket(self, b, sub):
        g, m = self.g, self.command
        bucket = g.bucket(b)
        if sub == "/iam":
            return self.reply(200, {"kind": "storage#policy", "bindings": [], "etag": "CAE="})
        if sub == "/storageLayout":
            return self.reply(200, {"kind": "storage#storageLayout", "bucket": b, "location": "US", "locationType": "multi-region"})
        if m == "GET":
            return self.reply(200, bucket)
        if m == "DELETE":
            with g.lock:
                if g.objects[b]:
                    raise ApiError(409, "The bucket you tried to delete is not empty.", "conflict")
                del g.buckets[b], g.objects[b]
                (g.root / "meta" / (hashlib.sha256(f"b-{b}".encode()).hexdigest()[:40] + ".json")).unlink(missing_ok=True)
            return self.reply(204)
        bucket.update(json.loads(self.body() or b"{}"))
        bucket["metageneration"] = str(int(bucket["metageneration"]) + 1)
        g._save_meta(bucket, "b-" + b)
        self.reply(200, bucket)

    def list_json(self, b):
        with self.g.lock:
            r = self.g.list(b, self.q)
        out = {"kind": "storage#objects", "items": r["items"]}
        if r["prefixes"]:
            out["prefixes"] = r["prefixes"]
        if r["token"]:
            out["nextPageToken"] = r["token"]
        self.reply(200, out)

    def object_json(self, b, n):
        g, m = self.g, self.command
        o = g.object(b, n, self.q.get("generation"))
        if m in ("GET", "HEAD"):
            g.check(b, n, self.cond(read=True))
            if self.q.get("alt") == "media" or self.raw_path.startswith("/download/"):
                return self.media(o)
            return self.reply(200, o, {"ETag": o["etag"]})
        if m == "DELETE":
            with g.lock:
                g.check(b, n, self.cond())
                g.delete(b, n)
            return self.reply(204)
        d = json.loads(self.body() or b"{}")
        with g.lock:
            g.check(b, n, self.cond())
            if m == "PATCH" and isinstance(d.get("metadata"), dict):
                d["metadata"] = {k: v for k, v in {**(o.get("metadata") or {}), **d["metadata"]}.items() if v is not None}
            o.update({k: v for k, v in d.items() if k in ("metadata", "contentType", "cacheControl", "contentEncoding", "contentDisposition", "contentLanguage", "customTime", "storageClass")})
            o["metageneration"] = str(int(o["metageneration"]) + 1)
            o["updated"] = now()
            g._save_meta(o, f"o-{b}/{n}")
        self.reply(200, o)

    def upload(self, b):
        g, q = self.g, self.q
        g.bucket(b)
        kind = q.get("uploadType")
        if kind == "resumable":
            meta = json.loads(self.body() or b"{}")
            name = meta.get("name") or q.get("name")
            if not name:
                raise ApiError(400, "Required", "required")
            meta.setdefault("contentType", self.headers.get("x-upload-content-type"))
            return self.new_session(b, name, meta, self.headers.get("x-upload-content-length"), 200)
        tmp, body = g.tmpfile(), Body(g.md5)
        if kind == "media":
            self.save(tmp, body)
            o = g.commit(b, q["name"], tmp, body, {"contentType": self.headers.get("content-type")}, self.cond(), self.want_hash())
            return self.reply(200, o)
        if kind != "multipart":
            raise ApiError(400, "Unknown uploadType")
        meta, data, ctype = _related(self.body(), self.headers["content-type"])
        name = meta.get("name") or q.get("name")
        meta.setdefault("contentType", ctype)
        body.feed(data)
        tmp.write_bytes(data)
        self.reply(200, g.commit(b, name, tmp, body, meta, self.cond(), self.want_hash()))

    def new_session(self, b, name, meta, length, status):
        g = self.g
        cond = self.cond()
        with g.lock:
            g.check(b, name, cond)
        s = {"id": uuid.uuid4().hex, "bucket": b, "name": name, "meta": meta, "cond": cond, "size": 0, "total": int(length) if length else None, "state": "open", "crc": 0}
        (g.root / "sess" / f"{s['id']}.data").touch()
        g.sessions[s["id"]] = s
        g.save_session(s)
        loc = f"{g.url}/upload/storage/v1/b/{quote(b, safe='')}/o?uploadType=resumable&name={quote(name, safe='')}&upload_id={s['id']}"
        self.reply(status, b"", {"Location": loc, "X-GUploader-UploadID": s["id"]})

    def session(self, sid):
        g = self.g
        s = g.sessions.get(sid)
        if s is None:
            raise ApiError(404, "Upload session not found", "notFound")
        if s["state"] == "gone":
            raise ApiError(410, "Upload session expired", "gone")
        if s["state"] == "cancelled":
            raise ApiError(499, "Client Closed Request", "cancelled")
        if self.command == "DELETE":
            s["state"] = "cancelled"
            g.save_session(s)
            return self.reply(499)
        if s["state"] == "done":
            for _ in self.chunks():
                pass
            return self.reply(200, s["object"])
        path = g.root / "sess" / f"{sid}.data"
        cr = self.headers.get("content-range")
        start, total, final = 0, s["total"], True
        if cr:
            r = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", cr.strip())
            if not r:
                raise ApiError(400, "Failed to parse Content-Range header.")
            if r[3] != "*":
                total = int(r[3])
            if r[1] is None:                                # status query
                for _ in self.chunks():
                    pass
                if r[3] != "*" and s["size"] == total:
                    return self.finish_session(s, path)
                return self.incomplete(s)
            start = int(r[1])
            final = r[3] != "*" and int(r[2]) + 1 == total
            if r[3] != "*" and int(r[2]) >= total:
                raise ApiError(400, "Content-Range end exceeds the total size.")
            if "chunked" not in (self.headers.get("transfer-encoding") or "") and self.left != int(r[2]) - start + 1:
                raise ApiError(400, "Content-Range does not match Content-Length.")
        if start > s["size"]:
            raise ApiError(g.gap_status, f"Invalid request.  According to the Content-Range header, the upload offset is {start} byte(s), which exceeds already uploaded size of {s['size']} byte(s).")
        body = Body(False)
        try:
            self.save(path, body, mode="r+b" if not s["size"] else "ab", skip=s["size"] - start)
        except Dropped:
            final = False
            raise
        finally:
            keep = s["size"] + body.size
            if not final:
                keep -= keep % K256                          # only whole 256 KiB blocks are persisted
            with open(path, "r+b") as f:
                f.truncate(keep)
            s["size"], s["total"] = keep, total
            g.save_session(s)
        if final:
            return self.finish_session(s, path)
        self.incomplete(s)

    def incomplete(self, s):
        self.reply(308, b"", {"Range": f"bytes=0-{s['size'] - 1}"} if s["size"] else {})

    def finish_session(self, s, path):
        g = self.g
        body = Body(g.md5)
        with open(path, "rb") as f:
            while d := f.read(BUF):
                body.feed(d)
        tmp = g.tmpfile()
        os.replace(path, tmp)
        s["state"] = "failed"
        o = g.commit(s["bucket"], s["name"], tmp, body, s["meta"], s["cond"], self.want_hash())
        s.update(state="done", object=o)
        g.save_session(s)
        self.reply(200, o)

    def compose(self, b, n):
        g, d = self.g, json.loads(self.body())
        tmp, body, count = g.tmpfile(), Body(False), 0
        with open(tmp, "wb") as out:
            for src in d["sourceObjects"]:
                o = g.object(b, src["name"], src.get("generation"))
                count += o.get("componentCount", 1)
                with open(g.path_of(o), "rb") as f:
                    while c := f.read(BUF):
                        body.feed(c)
                        out.write(c)
        self.reply(200, g.commit(b, n, tmp, body, d.get("destination") or {}, self.cond(), components=count))

    def rewrite(self, b, n, db, dn, verb):
        g = self.g
        d = json.loads(self.body() or b"{}")
        o = g.object(b, n, self.q.get("sourceGeneration"))
        tmp, body = g.tmpfile(), Body(g.md5)
        shutil.copyfile(g.path_of(o), tmp)
        with open(tmp, "rb") as f:
            while c := f.read(BUF):
                body.feed(c)
        new = g.commit(db, dn, tmp, body, {**{k: v for k, v in o.items() if k not in ("crc32c", "md5Hash")}, **d}, self.cond(), components=o.get("componentCount"))
        if verb == "copyTo":
            return self.reply(200, new)
        self.reply(200, {"kind": "storage#rewriteResponse", "done": True, "totalBytesRewritten": new["size"], "objectSize": new["size"], "resource": _public(new)})

    def batch(self):
        g = self.g
        boundary = re.search(r'boundary="?([^";]+)', self.headers["content-type"])[1].encode()
        parts = []
        for raw in self.body().split(b"--" + boundary)[1:-1]:
            head, inner, *_ = re.split(rb"\r?\n\r?\n", raw.strip(b"\r\n"), maxsplit=1) + [b""]
            cid = (re.search(rb"content-id:\s*<?([^>\r\n]+)", head, re.I) or [b"", b"0"])[1].decode()
            verb, target = inner.split(b"\n", 1)[0].decode().split()[:2]
            payload = (re.split(rb"\r?\n\r?\n", inner, maxsplit=1) + [b""])[1].strip()
            r = re.fullmatch(r"(?:https?://[^/]+)?/storage/v1/b/([^/]+)/o/([^/?]+).*", target)
            try:
                o = g.object(unquote(r[1]), unquote(r[2]))
                if verb == "DELETE":
                    g.delete(o["bucket"], o["name"])
                    code, out = "204 No Content", b""
                else:
                    if verb == "PATCH":
                        o.update(json.loads(payload or b"{}"))
                    code, out = "200 OK", json.dumps(_public(o)).encode()
            except ApiError as e:
                code, out = f"{e.status} Error", json.dumps({"error": {"code": e.status, "message": e.message}}).encode()
            parts.append(b"--B\r\nContent-Type: application/http\r\nContent-ID: <response-" + cid.encode() + b">\r\n\r\nHTTP/1.1 " + code.encode() + b"\r\nContent-Type: application/json\r\nContent-Length: " + str(len(out)).encode() + b"\r\n\r\n" + out + b"\r\n")
        self.reply(200, b"".join(parts) + b"--B--", ctype='multipart/mixed; boundary="B"')

    def media(self, o):
        g, size = self.g, int(o["size"])
        lo, hi, status = 0, size - 1, 200
        hdr = {"x-goog-generation": o["generation"], "x-goog-metageneration": o["metageneration"], "x-goog-stored-content-length": str(size),
               "x-goog-hash": f"crc32c={o['crc32c']}" + (f",md5={o['md5Hash']}" if o.get("md5Hash") else ""), "ETag": f'"{o["etag"]}"' if not self.is_json else o["etag"],
               "Accept-Ranges": "bytes", "Last-Modified": self.date_time_string(dt.datetime.fromisoformat(o["updated"].replace("Z", "+00:00")).timestamp())}
        if o.get("contentEncoding"):
            hdr["Content-Encoding"] = o["contentEncoding"]
        r = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range") or "")
        if r and (r[1] or r[2]):
            if not r[1]:
                lo = max(0, size - int(r[2]))
            else:
                lo, hi = int(r[1]), min(int(r[2]) if r[2] else size - 1, size - 1)
            if lo >= size:
                raise ApiError(416, "The requested range cannot be satisfied.", "requestedRangeNotSatisfiable", "InvalidRange")
            status = 206
            hdr["Content-Range"] = f"bytes {lo}-{hi}/{size}"
        if self.lost:
            raise Dropped
        self.status = status
        self.send_response(status)
        for k, v in hdr.items():
            self.send_header(k, v)
        n = hi - lo + 1
        self.send_header("Content-Length", str(n))
        self.send_header("Content-Type", o["contentType"])
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.flush()
        with open(g.path_of(o), "rb") as f:
            n = n if self.cut is None else min(n, self.cut)
            while n > 0:
                sent = os.sendfile(self.connection.fileno(), f.fileno(), lo, min(n, 1 << 22)) if not self.connection.gettimeout() else self._send(f, lo, n)
                if not sent:
                    break
                lo, n = lo + sent, n - sent
        if self.cut is not None:
            raise Dropped

    def _send(self, f, lo, n):
        f.seek(lo)
        d = f.read(min(n, BUF))
        self.connection.sendall(d)
        return len(d)

    # -- XML API
    def xml_bucket(self, b):
        g, q = self.g, self.q
        g.bucket(b)
        if "uploads" in q:
            ups = "".join(f"<Upload><Key>{escape(u['name'])}</Key><UploadId>{u['id']}</UploadId><Initiated>{u['at']}</Initiated></Upload>" for u in g.mpu.values() if u["bucket"] == b)
            return self.xml(200, "ListMultipartUploadsResult", f"<Bucket>{b}</Bucket>{ups}<IsTruncated>false</IsTruncated>")
        if self.command == "HEAD":
            return self.reply(200)
        q2 = {**q, "pageToken": q.get("continuation-token"), "startOffset": q.get("start-after")}
        r = g.list(b, q2)
        body = "".join(f"<Contents><Key>{escape(o['name'])}</Key><Generation>{o['generation']}</Generation><LastModified>{o['updated']}</LastModified><ETag>\"{o['etag']}\"</ETag><Size>{o['size']}</Size></Contents>" for o in r["items"])
        body += "".join(f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in r["prefixes"])
        nxt = f"<NextContinuationToken>{r['token']}</NextContinuationToken>" if r["token"] else ""
        self.xml(200, "ListBucketResult", f"<Name>{b}</Name><Prefix>{escape(q.get('prefix', ''))}</Prefix><KeyCount>{len(r['items'])}</KeyCount><IsTruncated>{str(bool(r['token'])).lower()}</IsTruncated>{nxt}{body}")

    def xml_object(self, b, n):
        g, q, m = self.g, self.q, self.command
        g.bucket(b)
        if "uploads" in q and m == "POST":
            u = {"id": uuid.uuid4().hex, "bucket": b, "name": n, "meta": self.xml_meta(), "parts": {}, "at": now()}
            (g.root / "mpu" / u["id"]).mkdir()
            g.mpu[u["id"]] = u
            g.save_mpu(u)
            return self.xml(200, "InitiateMultipartUploadResult", f"<Bucket>{b}</Bucket><Key>{escape(n)}</Key><UploadId>{u['id']}</UploadId>")
        if "uploadId" in q:
            return self.multipart(b, n)
        if m == "POST" and (self.headers.get("x-goog-resumable") or "").lower() == "start":
            self.body()
            return self.new_session(b, n, self.xml_meta(), None, 201)
        if m == "PUT":
            tmp = g.tmpfile()
            if src := self.headers.get("x-goog-copy-source"):
                sb, _, sn = unquote(src).lstrip("/").partition("/")
                self.body()
                shutil.copyfile(g.path_of(g.object(sb, sn)), tmp)
                body = Body(g.md5)
                body.feed(tmp.read_bytes())
            else:
                body = self.save(tmp, Body(g.md5))
            o = g.commit(b, n, tmp, body, self.xml_meta(), self.cond(), self.want_hash())
            return self.reply(200, b"", {"ETag": f'"{o["etag"]}"', "x-goog-generation": o["generation"], "x-goog-metageneration": "1", "x-goog-hash": f"crc32c={o['crc32c']}"})
        o = g.object(b, n, q.get("generation"))
        if m == "DELETE":
            with g.lock:
                g.check(b, n, self.cond())
                g.delete(b, n)
            return self.reply(204)
        g.check(b, n, self.cond(read=True))
        self.media(o)

    def multipart(self, b, n):
        g, q, m = self.g, self.q, self.command
        u = g.mpu.get(q["uploadId"])
        if u is None or (u["bucket"], u["name"]) != (b, n):
            raise ApiError(404, "The requested upload was not found.", code="NoSuchUpload")
        d = g.root / "mpu" / u["id"]
        if m == "PUT":
            num = int(q.get("partNumber") or 0)
            if not 1 <= num <= 10000:
                raise ApiError(400, "partNumber must be in 1..10000")
            tmp = d / f"tmp-{uuid.uuid4().hex}"
            body = self.save(tmp, Body(g.md5))
            g.check_hash(body, self.want_hash())
            etag = f'"{body.md5.hexdigest()}"' if body.md5 else f'"{body.crc:08x}{body.size:x}"'
            with g.lock:
                os.replace(tmp, d / f"part-{num}")
                u["parts"][num] = {"etag": etag, "size": body.size, "crc32c": b64crc(body.crc), "at": now()}
                g.save_mpu(u)
            return self.reply(200, b"", {"ETag": etag, "x-goog-hash": f"crc32c={b64crc(body.crc)}"})
        if m == "DELETE":
            with g.lock:
                g.mpu.pop(u["id"])
            shutil.rmtree(d, ignore_errors=True)
            return self.reply(204)
        if m == "GET":
            after, limit = int(q.get("part-number-marker") or 0), int(q.get("max-parts") or 1000)
            nums = [k for k in sorted(u["parts"]) if k > after]
            page = nums[:limit]
            inner = "".join(f"<Part><PartNumber>{k}</PartNumber><LastModified>{u['parts'][k]['at']}</LastModified><ETag>{u['parts'][k]['etag']}</ETag><Size>{u['parts'][k]['size']}</Size></Part>" for k in page)
            more = f"<NextPartNumberMarker>{page[-1]}</NextPartNumberMarker>" if page else ""
            return self.xml(200, "ListPartsResult", f"<Bucket>{b}</Bucket><Key>{escape(n)}</Key><UploadId>{u['id']}</UploadId>{more}<MaxParts>{limit}</MaxParts><IsTruncated>{str(len(nums) > limit).lower()}</IsTruncated>{inner}")
        text = self.body().decode()
        try:
            listed = [({c.tag.rpartition("}")[2]: (c.text or "").strip() for c in part}) for part in ElementTree.fromstring(text)]
            listed = [(int(p["PartNumber"]), p["ETag"]) for p in listed]
        except (ElementTree.ParseError, KeyError, ValueError):
            listed = []
        if not listed:
            raise ApiError(400, "The XML you provided was not well-formed.", code="MalformedXML")
        if [a for a, _ in listed] != sorted({a for a, _ in listed}):
            raise ApiError(400, "Parts must be in ascending order.", code="InvalidPartOrder")
        for a, e in listed:
            if a not in u["parts"] or e.strip('"') != u["parts"][a]["etag"].strip('"'):
                raise ApiError(400, f"Part {a} could not be found or its ETag does not match.", code="InvalidPart")
        for a, _ in listed[:-1]:
            if u["parts"][a]["size"] < g.min_part_size:
                raise ApiError(400, "Your proposed upload is smaller than the minimum allowed object size.", code="EntityTooSmall")
        tmp, body = g.tmpfile(), Body(False)
        with open(tmp, "wb", buffering=0) as out:
            for a, _ in listed:
                with open(d / f"part-{a}", "rb", buffering=0) as f:
                    while c := f.read(BUF):
                        body.feed(c)
                        out.write(c)
        o = g.commit(b, n, tmp, body, u["meta"], self.cond(), components=len(listed))
        with g.lock:
            g.mpu.pop(u["id"], None)
        shutil.rmtree(d, ignore_errors=True)
        self.xml(200, "CompleteMultipartUploadResult", f"<Location>{g.url}/{b}/{quote(n)}</Location><Bucket>{b}</Bucket><Key>{escape(n)}</Key><ETag>\"{o['etag']}\"</ETag>")


def _public(d):
    if isinstance(d, dict):
        return {k: _public(v) for k, v in d.items() if not k.startswith("_")}
    return [_public(x) for x in d] if isinstance(d, list) else d


def _related(raw: bytes, ctype: str):
    """Split multipart/related into (metadata, media, media content type); CRLF or bare LF line ends."""
    m = re.search(r'boundary=(?:"([^"]+)"|\'([^\']+)\'|([^;\s]+))', ctype)
    boundary = b"--" + next(x for x in m.groups() if x).encode()
    blank, line = re.compile(rb"\r?\n\r?\n"), re.compile(rb"\r?\n" + re.escape(boundary))
    h1 = blank.search(raw, raw.index(boundary))
    p2 = line.search(raw, h1.end())
    h2 = blank.search(raw, p2.end())
    *_, end = re.compile(rb"\r?\n" + re.escape(boundary) + b"--").finditer(raw, h2.start())
    t = re.search(rb"content-type:\s*([^\r\n]+)", raw[p2.end():h2.start()], re.I)
    return json.loads(raw[h1.end():p2.start()] or b"{}"), raw[h2.end():end.start()], t[1].decode() if t else None


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--host", default="127.0.0.1")
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--root")
    ap.add_argument("--no-md5", action="store_true")
    a = ap.parse_args()
    fake = FakeGcs(a.root, a.host, a.port, md5=not a.no_md5).start()
    print(fake.url, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
