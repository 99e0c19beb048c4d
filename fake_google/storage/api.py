"""Cloud Storage's JSON and XML APIs, as far as our server and its clients use them.

https://cloud.google.com/storage/docs/json_api/v1, https://cloud.google.com/storage/docs/xml-api

fake-gcs-server exists, but it holds each object in memory (6.9 GB for an upload of 1 GiB, measured
with 1.54), doesn't support the XML API's multipart uploads
(https://github.com/fsouza/fake-gcs-server/issues/852) and checks neither tokens nor signatures.
Here, bodies are streamed both ways, and every request requires a grant that the program declared.
"""

from __future__ import annotations

import base64
import uuid
from asyncio import to_thread
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import BodyPartReader, web

from fake_google.endpoints import MEBIBYTE
from fake_google.iam import policy as iam
from fake_google.iam.sign_blob import Keys
from fake_google.metadata_server import Identities
from fake_google.storage.objects import QUANTUM, Object, Store, Upload, checksum
from fake_google.storage.signed_urls import BadSignature, is_signed, signer

_XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
# https://cloud.google.com/storage/quotas#requests
_MIN_PART, _MAX_PARTS, _MAX_COMPOSE, _MAX_NAME = 5 * MEBIBYTE, 10_000, 32, 1024
_HEADERS = {
    "cacheControl": "Cache-Control",
    "contentDisposition": "Content-Disposition",
    "contentEncoding": "Content-Encoding",
    "contentLanguage": "Content-Language",
}


class Refused(Exception):
    """A refusal, with the texts of both APIs."""

    def __init__(
        self, status: int, reason: str, code: str, message: str, details: str = "", **headers: str
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.code = status, reason, code
        self.message, self.details = message, details
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def json(self) -> web.Response:
        message = self.details or self.message
        errors = [{"message": message, "domain": "global", "reason": self.reason}]
        body = {"error": {"code": self.status, "message": message, "errors": errors}}
        return web.json_response(body, status=self.status, headers=self.headers)

    def xml(self) -> web.Response:
        details = f"<Details>{escape(self.details)}</Details>" if self.details else ""
        text = f"<Code>{self.code}</Code><Message>{escape(self.message)}</Message>{details}"
        return _xml(f"<Error>{text}</Error>", status=self.status, headers=self.headers)


def _xml(text: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        text=f"<?xml version='1.0' encoding='UTF-8'?>{text}",
        content_type="application/xml",
        charset="UTF-8",
        status=status,
        headers=headers,
    )


def _is_true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() == "true"


def _no_such(what: str, name: str) -> Refused:
    if what == "bucket":
        return Refused(404, "notFound", "NoSuchBucket", "The specified bucket does not exist.")
    return Refused(
        404, "notFound", "NoSuchKey", "The specified key does not exist.", f"No such object: {name}"
    )


def _invalid(message: str, *, code: str = "InvalidArgument", status: int = 400) -> Refused:
    return Refused(status, "invalid", code, "Invalid argument.", message)


def _not_here(request: web.Request) -> Refused:
    what = f"{request.method} {request.path_qs} is not imitated on this computer."
    return Refused(501, "notImplemented", "NotImplemented", what)


@dataclass
class Session:
    """A resumable upload in progress, or the resulting object."""

    attributes: dict[str, Any]
    conditions: Mapping[str, str]
    upload: Upload
    done: Object | None = None


@dataclass
class Multipart:
    """A multipart upload of the XML API: parts by number; the last upload of a number counts."""

    attributes: dict[str, Any]
    parts: dict[int, Upload] = field(default_factory=dict)


class Storage:
    def __init__(
        self, *, store: Store, policy: iam.Policy, identities: Identities, keys: Keys
    ) -> None:
        self._store, self._policy, self._identities, self._keys = store, policy, identities, keys
        self._sessions: dict[str, Session] = {}
        self._multiparts: dict[str, Multipart] = {}
        # How far the bucket's clock is ahead of this computer's, for tests.
        self.ahead = timedelta()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        # The raw path: an encoded slash belongs to the object's name.
        segments = [unquote(part) for part in request.raw_path.partition("?")[0].split("/")][1:]
        match segments:
            case ["storage" | "upload" | "download", *_]:
                try:
                    return await self._json_api(request, segments)
                except Refused as refused:
                    return refused.json()
            case [bucket, *name]:
                try:
                    return await self._xml_api(request, bucket, "/".join(name))
                except Refused as refused:
                    return refused.xml()
        return web.Response(status=404)

    async def _json_api(self, request: web.Request, segments: list[str]) -> web.StreamResponse:
        caller = self._caller(request)
        match [request.method, *segments]:
            case ["GET", "storage", "v1", "b", bucket]:
                self._require(caller, "storage.buckets.get", bucket)
                return web.json_response(self._bucket(bucket))
            case ["GET", "storage", "v1", "b", bucket, "o"]:
                return self._list(request, caller, bucket)
            case ["POST", "storage", "v1", "b", bucket, "o", name, "compose"]:
                return await self._compose(request, caller, bucket, name)
            case ["POST", "storage", "v1", "b", bucket, "o", name, "restore"]:
                return self._restore(request, caller, bucket, name)
            case ["POST", "storage", "v1", "b", bucket, "o", name, "copyTo", "b", to, "o", as_]:
                return self._copy(request, caller, bucket, name, to, as_)
            case ["POST", "upload", "storage", "v1", "b", bucket, "o"]:
                return await self._upload(request, caller, bucket)
            case ["PUT" | "DELETE", "upload", "storage", "v1", "b", _, "o"]:
                return await self._resume(request)
            case ["GET", "download", "storage", "v1", "b", bucket, "o", *name]:
                found = self._readable(caller, bucket, "/".join(name), request.query)
                return await self._send(request, found)
            case [method, "storage", "v1", "b", bucket, "o", *parts]:
                return await self._object(request, method, caller, bucket, "/".join(parts))
        raise _not_here(request)

    # Permissions

    def _caller(self, request: web.Request) -> str | None:
        caller = self._identities.caller(request)
        # The session's address alone authorizes a client to continue an upload.
        if (
            caller is None
            and "Authorization" in request.headers
            and "upload_id" not in request.query
        ):
            raise Refused(401, "authError", "AuthenticationRequired", "Invalid Credentials")
        return caller

    def _may(self, caller: str | None, permission: str, bucket: str) -> bool:
        return self._policy.allowed(caller, permission, iam.bucket(bucket))

    def _require(self, caller: str | None, permission: str, bucket: str) -> None:
        if self._store.bucket(bucket) is None:
            raise _no_such("bucket", bucket)
        if not self._may(caller, permission, bucket):
            what = "object" if ".objects." in permission else "bucket"
            details = (
                f"{caller or 'Anonymous caller'} does not have {permission} access to the Google "
                f"Cloud Storage {what}."
            )
            rest = f" Permission '{permission}' denied on resource (or it may not exist)."
            status, reason = (403, "forbidden") if caller else (401, "required")
            code = "AccessDenied" if caller else "AuthenticationRequired"
            raise Refused(status, reason, code, "Access denied.", details + rest)

    def _readable(
        self, caller: str | None, bucket: str, name: str, query: Mapping[str, str] | None = None
    ) -> Object:
        self._require(caller, "storage.objects.get", bucket)
        return self._existing(caller, bucket, name, query or {})

    def _existing(
        self, caller: str | None, bucket: str, name: str, query: Mapping[str, str]
    ) -> Object:
        """Returns the version that the query names, or else the live object."""
        found = self._store.get(bucket, name)
        if generation := query.get("generation"):
            deleted = _is_true(query, "softDeleted")
            found = self._store.version(bucket, name, int(generation), deleted=deleted)
        if found is None:
            # Callers that may not list must not learn which objects exist.
            self._require(caller, "storage.objects.list", bucket)
            raise _no_such("object", f"{bucket}/{name}")
        return found

    def _require_create(self, caller: str | None, bucket: str, name: str) -> None:
        if not name or len(name.encode()) > _MAX_NAME or "\n" in name or "\r" in name:
            raise _invalid(f"Object names have 1 to {_MAX_NAME} bytes and no line breaks.")
        self._require(caller, "storage.objects.create", bucket)
        if self._store.get(bucket, name) is not None:
            self._require(caller, "storage.objects.delete", bucket)

    def _conditions(self, query: Mapping[str, str], found: Object | None) -> None:
        """Checks https://cloud.google.com/storage/docs/request-preconditions"""
        generation = found.generation if found else 0
        metageneration = int(found.attributes["metageneration"]) if found else 0
        for name, actual, wanted in (
            ("ifGenerationMatch", generation, True),
            ("ifGenerationNotMatch", generation, False),
            ("ifMetagenerationMatch", metageneration, True),
            ("ifMetagenerationNotMatch", metageneration, False),
        ):
            if name in query and (int(query[name]) == actual) is not wanted:
                message = "At least one of the pre-conditions you specified did not hold."
                raise Refused(412, "conditionNotMet", "PreconditionFailed", message)

    # The JSON API

    def _bucket(self, name: str) -> dict[str, Any]:
        return {
            "kind": "storage#bucket",
            "id": name,
            "name": name,
            **(self._store.bucket(name) or {}),
        }

    def _resource(self, request: web.Request, found: Object) -> dict[str, Any]:
        bucket, name = found.attributes["bucket"], quote(found.attributes["name"], safe="")
        base = f"http://{request.host}"
        media = f"{base}/download/storage/v1/b/{bucket}/o/{name}"
        return {
            "kind": "storage#object",
            **found.attributes,
            "selfLink": f"{base}/storage/v1/b/{bucket}/o/{name}",
            "mediaLink": f"{media}?generation={found.generation}&alt=media",
        }

    def _list(self, request: web.Request, caller: str | None, bucket: str) -> web.Response:
        self._require(caller, "storage.objects.list", bucket)
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = max(1, min(int(query.get("maxResults") or 1000), 1000))
        if _is_true(query, "versions") or _is_true(query, "softDeleted"):
            return self._list_versions(request, bucket)
        after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        more = True
        while more:
            more = False
            for found in self._store.below(bucket, after=after, prefix=prefix):
                if len(items) + len(prefixes) == limit:
                    token = base64.urlsafe_b64encode(after.encode()).decode()
                    return self._page(items, prefixes, {"nextPageToken": token})
                name = after = found.attributes["name"]
                head, cut, _ = (
                    name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                )
                if cut:
                    prefixes.append(prefix + head + cut)
                    # Skip all other names with this prefix.
                    after, more = prefixes[-1] + "\U0010ffff", True
                    break
                items.append(self._resource(request, found))
        return self._page(items, prefixes, {})

    def _list_versions(self, request: web.Request, bucket: str) -> web.Response:
        """Lists all versions in one page."""
        prefix, deleted = request.query.get("prefix", ""), _is_true(request.query, "softDeleted")
        found = list(self._store.versions(bucket, deleted=deleted, prefix=prefix))
        if not deleted:
            found += self._store.below(bucket, after="", prefix=prefix)
            found.sort(key=lambda each: (each.attributes["name"], each.generation))
        return self._page([self._resource(request, each) for each in found], [], {})

    def _page(
        self, items: list[dict[str, Any]], prefixes: list[str], token: dict[str, str]
    ) -> web.Response:
        page: dict[str, Any] = {"kind": "storage#objects", **token}
        page |= {"items": items} if items else {}
        page |= {"prefixes": prefixes} if prefixes else {}
        return web.json_response(page)

    async def _object(
        self, request: web.Request, method: str, caller: str | None, bucket: str, name: str
    ) -> web.StreamResponse:
        if method in ("GET", "HEAD"):
            found = self._readable(caller, bucket, name, request.query)
            self._conditions(request.query, found)
            if request.query.get("alt") == "media":
                return await self._send(request, found)
            return web.json_response(self._resource(request, found))
        if method == "DELETE":
            self._require(caller, "storage.objects.delete", bucket)
            found = self._existing(caller, bucket, name, request.query)
            self._conditions(request.query, found)
            self._store.delete(found, for_good="generation" in request.query)
            return web.Response(status=204)
        if method == "PATCH":
            self._require(caller, "storage.objects.update", bucket)
            found = self._existing(caller, bucket, name, {})
            self._conditions(request.query, found)
            changes = await request.json()
            allowed = {"contentType", "metadata", "customTime", *_HEADERS}
            patched = self._store.patch(
                found, {key: value for key, value in changes.items() if key in allowed}
            )
            return web.json_response(self._resource(request, patched))
        raise _not_here(request)

    async def _compose(
        self, request: web.Request, caller: str | None, bucket: str, name: str
    ) -> web.Response:
        body = await request.json()
        names = [source["name"] for source in body.get("sourceObjects", [])]
        if not 1 <= len(names) <= _MAX_COMPOSE:
            raise _invalid(f"Compose takes 1 to {_MAX_COMPOSE} source objects, got {len(names)}.")
        sources = [self._readable(caller, bucket, source) for source in names]
        self._require_create(caller, bucket, name)
        self._conditions(request.query, self._store.get(bucket, name))
        links = self._store.link(sources)
        components = sum(int(source.attributes.get("componentCount", 1)) for source in sources)
        attributes = {
            **body.get("destination", {}),
            "bucket": bucket,
            "name": name,
            "componentCount": components,
            "crc32c": await to_thread(checksum, links),
        }
        return web.json_response(self._resource(request, self._store.put(attributes, links)))

    # Restoring replaced or deleted objects, as new objects

    def _restore(
        self, request: web.Request, caller: str | None, bucket: str, name: str
    ) -> web.Response:
        """https://cloud.google.com/storage/docs/json_api/v1/objects/restore"""
        self._require(caller, "storage.objects.restore", bucket)
        self._require_create(caller, bucket, name)
        query = {**request.query, "softDeleted": "true"}
        found = self._existing(caller, bucket, name, query)
        self._conditions(request.query, self._store.get(bucket, name))
        return web.json_response(self._resource(request, self._again(found, bucket, name)))

    def _copy(
        self, request: web.Request, caller: str | None, bucket: str, name: str, to: str, as_: str
    ) -> web.Response:
        """https://cloud.google.com/storage/docs/json_api/v1/objects/copy"""
        generation = request.query.get("sourceGeneration")
        source = {"generation": generation} if generation else {}
        found = self._readable(caller, bucket, name, source)
        self._require_create(caller, to, as_)
        self._conditions(request.query, self._store.get(to, as_))
        return web.json_response(self._resource(request, self._again(found, to, as_)))

    def _again(self, found: Object, bucket: str, name: str) -> Object:
        dates = ("timeDeleted", "softDeleteTime", "hardDeleteTime")
        kept = {key: value for key, value in found.attributes.items() if key not in dates}
        return self._store.put({**kept, "bucket": bucket, "name": name}, self._store.link([found]))

    # Uploads: https://cloud.google.com/storage/docs/uploads-downloads

    async def _upload(
        self, request: web.Request, caller: str | None, bucket: str
    ) -> web.StreamResponse:
        kind = request.query.get("uploadType")
        if kind == "resumable":
            return await self._start(request, caller, bucket)
        attributes: dict[str, Any] = {}
        if kind == "media":
            content_type = request.headers.get("Content-Type")
            body: AsyncIterator[bytes] = request.content.iter_any()
        elif kind == "multipart":
            reader = await request.multipart()
            head = await reader.next()
            attributes = (await head.json() or {}) if isinstance(head, BodyPartReader) else {}
            media = await reader.next()
            if not isinstance(media, BodyPartReader):
                raise _invalid("A multipart upload has two parts: metadata and media.")
            content_type, body = media.headers.get("Content-Type"), _chunks(media)
        else:
            raise _invalid("uploadType is one of media, multipart, resumable.")
        attributes.setdefault("name", request.query.get("name", ""))
        attributes.setdefault("contentType", content_type or "application/octet-stream")
        attributes["bucket"] = bucket
        self._require_create(caller, bucket, attributes["name"])
        made = await self._receive(request, attributes, body)
        return web.json_response(self._resource(request, made))

    async def _receive(
        self, request: web.Request, attributes: dict[str, Any], body: AsyncIterator[bytes]
    ) -> Object:
        """Receives a whole object in one request."""
        upload = self._store.upload()
        try:
            await upload.receive(body)
            return self._finish(request.headers, request.query, attributes, upload)
        except BaseException:
            upload.discard()
            raise

    def _finish(
        self,
        headers: Mapping[str, str],
        conditions: Mapping[str, str],
        attributes: dict[str, Any],
        upload: Upload,
    ) -> Object:
        _check_hashes(headers, attributes, upload)
        self._conditions(conditions, self._store.get(attributes["bucket"], attributes["name"]))
        upload.close()
        return self._store.put({**attributes, **upload.hashes}, [upload.path])

    async def _start(self, request: web.Request, caller: str | None, bucket: str) -> web.Response:
        attributes = await request.json() if request.can_read_body else {}
        attributes.setdefault("name", request.query.get("name", ""))
        content_type = request.headers.get("X-Upload-Content-Type")
        attributes |= {"contentType": content_type} if content_type else {}
        attributes["bucket"] = bucket
        self._require_create(caller, bucket, attributes["name"])
        upload_id = uuid.uuid4().hex
        self._sessions[upload_id] = Session(attributes, dict(request.query), self._store.upload())
        address = f"http://{request.host}/upload/storage/v1/b/{quote(bucket)}/o"
        location = f"{address}?uploadType=resumable&upload_id={upload_id}"
        return web.Response(headers={"Location": location, "X-GUploader-UploadID": upload_id})

    async def _resume(self, request: web.Request) -> web.Response:
        """https://cloud.google.com/storage/docs/performing-resumable-uploads"""
        upload_id = request.query.get("upload_id", "")
        session = self._sessions.get(upload_id)
        if session is None:
            raise _invalid("No such upload session.", status=404, code="NoSuchUpload")
        if request.method == "DELETE":
            del self._sessions[upload_id]
            session.upload.discard()
            return web.Response(status=499, reason="Client Closed Request")
        if session.done is None:
            start, total = _content_range(request)
            if start is not None:
                if start > session.upload.size:
                    raise _invalid(f"The session has {session.upload.size} bytes, not {start}.")
                skip = session.upload.size - start
                await session.upload.receive(_without(request.content.iter_any(), skip))
            if total is None or session.upload.size < total:
                if start is not None and session.upload.size % QUANTUM:
                    raise _invalid(
                        f"A chunk that is not the last is a multiple of {QUANTUM} bytes."
                    )
                return self._incomplete(session)
            session.done = self._finish(
                request.headers, session.conditions, session.attributes, session.upload
            )
        return web.json_response(self._resource(request, session.done))

    def _incomplete(self, session: Session) -> web.Response:
        size = session.upload.size
        headers = {"Range": f"bytes=0-{size - 1}"} if size else {}
        return web.Response(status=308, reason="Resume Incomplete", headers=headers)

    # The XML API, which is what signed URLs address

    async def _xml_api(self, request: web.Request, bucket: str, name: str) -> web.StreamResponse:
        query = request.query
        if is_signed(query):
            try:
                caller: str | None = signer(
                    method=request.method,
                    target=request.raw_path,
                    headers=request.headers,
                    keys=self._keys,
                    at=datetime.now(UTC) + self.ahead,
                )
            except BadSignature as bad:
                raise Refused(bad.status, "authError", bad.code, bad.message, bad.details) from None
        else:
            caller = self._caller(request)
        if not name:
            raise _not_here(request)
        match request.method:
            case "POST" if "uploads" in query:
                return self._initiate(request, caller, bucket, name)
            case "PUT" if "uploadId" in query:
                return await self._put_part(request, caller, bucket, name)
            case "GET" if "uploadId" in query:
                return self._list_parts(query["uploadId"], caller, bucket, name)
            case "POST" if "uploadId" in query:
                return await self._complete(request, caller, bucket, name)
            case "DELETE" if "uploadId" in query:
                self._require(caller, "storage.multipartUploads.abort", bucket)
                upload = self._multipart(query["uploadId"], bucket, name)
                del self._multiparts[query["uploadId"]]
                for part in upload.parts.values():
                    part.discard()
                return web.Response(status=204)
            case "GET" | "HEAD":
                return await self._send(request, self._readable(caller, bucket, name, query))
            case "PUT":
                self._require_create(caller, bucket, name)
                attributes = _attributes(request.headers, bucket, name)
                made = await self._receive(request, attributes, request.content.iter_any())
                return web.Response(headers=_entity_headers(made))
            case "DELETE":
                self._require(caller, "storage.objects.delete", bucket)
                self._store.delete(self._existing(caller, bucket, name, query))
                return web.Response(status=204)
        raise _not_here(request)

    # https://cloud.google.com/storage/docs/multipart-uploads

    def _multipart(self, upload_id: str, bucket: str, name: str) -> Multipart:
        upload = self._multiparts.get(upload_id)
        if upload is None or (upload.attributes["bucket"], upload.attributes["name"]) != (
            bucket,
            name,
        ):
            message = "The requested upload was not found."
            raise Refused(404, "notFound", "NoSuchUpload", message)
        return upload

    def _initiate(
        self, request: web.Request, caller: str | None, bucket: str, name: str
    ) -> web.Response:
        self._require(caller, "storage.multipartUploads.create", bucket)
        self._require_create(caller, bucket, name)
        upload_id = uuid.uuid4().hex
        self._multiparts[upload_id] = Multipart(_attributes(request.headers, bucket, name))
        return _xml(
            f"<InitiateMultipartUploadResult xmlns='{_XMLNS}'><Bucket>{escape(bucket)}</Bucket>"
            f"<Key>{escape(name)}</Key><UploadId>{upload_id}</UploadId>"
            "</InitiateMultipartUploadResult>"
        )

    async def _put_part(
        self, request: web.Request, caller: str | None, bucket: str, name: str
    ) -> web.Response:
        self._require(caller, "storage.multipartUploads.create", bucket)
        self._require(caller, "storage.objects.create", bucket)
        upload_id = request.query["uploadId"]
        self._multipart(upload_id, bucket, name)
        number = request.query.get("partNumber", "")
        if not number.isdigit() or not 1 <= int(number) <= _MAX_PARTS:
            raise _invalid(f"Part numbers are 1 to {_MAX_PARTS}, got {number!r}.")
        part = self._store.upload()
        try:
            await part.receive(request.content.iter_any())
            _check_hashes(request.headers, {}, part)
            # Look the upload up again: it may have been completed or aborted meanwhile.
            parts = self._multipart(upload_id, bucket, name).parts
        except BaseException:
            part.discard()
            raise
        part.close()
        if replaced := parts.get(int(number)):
            replaced.discard()
        parts[int(number)] = part
        hashes = part.hashes
        return web.Response(
            headers={
                "ETag": f'"{part.md5.hex()}"',
                "X-Goog-Hash": f"crc32c={hashes['crc32c']},md5={hashes['md5Hash']}",
            }
        )

    def _list_parts(
        self, upload_id: str, caller: str | None, bucket: str, name: str
    ) -> web.Response:
        self._require(caller, "storage.multipartUploads.listParts", bucket)
        upload = self._multipart(upload_id, bucket, name)
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{part.md5.hex()}&quot;</ETag>"
            f"<Size>{part.size}</Size></Part>"
            for number, part in sorted(upload.parts.items())
        )
        return _xml(
            f"<ListPartsResult xmlns='{_XMLNS}'><Bucket>{escape(bucket)}</Bucket>"
            f"<Key>{escape(name)}</Key><UploadId>{upload_id}</UploadId>"
            f"<IsTruncated>false</IsTruncated>{rows}</ListPartsResult>"
        )

    async def _complete(
        self, request: web.Request, caller: str | None, bucket: str, name: str
    ) -> web.Response:
        self._require(caller, "storage.multipartUploads.create", bucket)
        self._require_create(caller, bucket, name)
        upload_id = request.query["uploadId"]
        upload = self._multipart(upload_id, bucket, name)
        chosen = _parts_of(await request.read())
        if not chosen or [number for number, _ in chosen] != sorted({n for n, _ in chosen}):
            raise _invalid(
                "Parts are listed once each, in ascending order.", code="InvalidPartOrder"
            )
        parts = []
        for number, etag in chosen:
            part = upload.parts.get(number)
            if part is None or etag.strip('"') != part.md5.hex():
                raise _invalid(
                    f"Part {number} could not be found, or its entity tag does not match.",
                    code="InvalidPart",
                )
            parts.append(part)
        if any(part.size < _MIN_PART for part in parts[:-1]):
            raise _invalid(f"All parts but the last have {_MIN_PART} bytes.", code="EntityTooSmall")
        files = [part.path for part in parts]
        crc32c = await to_thread(checksum, files)
        # The first request to complete or abort wins; the object appears in one step.
        if self._multiparts.pop(upload_id, None) is None:
            raise Refused(404, "notFound", "NoSuchUpload", "The requested upload was not found.")
        for part in upload.parts.values():
            if part not in parts:
                part.discard()
        made = self._store.put(
            {**upload.attributes, "crc32c": crc32c, "componentCount": len(parts)}, files
        )
        location = f"http://{request.host}/{bucket}/{quote(name)}"
        return _xml(
            f"<CompleteMultipartUploadResult xmlns='{_XMLNS}'>"
            f"<Location>{escape(location)}</Location><Bucket>{escape(bucket)}</Bucket><Key>{escape(name)}</Key>"
            f"<ETag>&quot;{made.attributes['etag']}&quot;</ETag></CompleteMultipartUploadResult>"
        )

    # Downloads

    async def _send(self, request: web.Request, found: Object) -> web.StreamResponse:
        start, end, headers = 0, found.size, _entity_headers(found)
        wanted = request.headers.get("Range")
        if wanted and (span := _range(wanted, found.size)):
            start, end = span
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
        if "response-content-disposition" in request.query:
            headers["Content-Disposition"] = request.query["response-content-disposition"]
        if "response-content-type" in request.query:
            headers["Content-Type"] = request.query["response-content-type"]
        headers["Content-Length"] = str(end - start)
        response = web.StreamResponse(
            status=206 if "Content-Range" in headers else 200, headers=headers
        )
        await response.prepare(request)
        if request.method != "HEAD":
            async for chunk in found.read(start, end):
                await response.write(chunk)
        await response.write_eof()
        return response


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(MEBIBYTE):
        yield chunk


async def _without(body: AsyncIterator[bytes], skip: int) -> AsyncIterator[bytes]:
    """Yields a body without its first bytes, which an earlier request already sent."""
    async for chunk in body:
        yield chunk[skip:]
        skip = max(skip - len(chunk), 0)


def _content_range(request: web.Request) -> tuple[int | None, int | None]:
    """Returns where the body starts (None for a status request), and the total size."""
    text = request.headers.get("Content-Range")
    if text is None:
        length = request.content_length
        return 0, length if length is not None else 0
    span, slash, size = text.removeprefix("bytes ").partition("/")
    first, dash, last = span.partition("-")
    numbers = [part for part in (first, last, size) if part not in ("", "*")]
    if not text.startswith("bytes ") or not slash or not all(map(str.isdigit, numbers)):
        raise _invalid(f"Invalid Content-Range: {text}")
    return (int(first) if dash else None), (None if size == "*" else int(size))


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Returns a single range's start and end, or None for ranges that HTTP ignores."""
    unit, _, span = text.partition("=")
    first, dash, last = span.strip().partition("-")
    if unit != "bytes" or not dash or not (first + last).isdigit():
        return None
    start, end = (
        (int(first), int(last) + 1 if last else size) if first else (size - int(last), size)
    )
    if start >= size:
        message = "The requested range cannot be satisfied."
        raise Refused(
            416,
            "requestedRangeNotSatisfiable",
            "InvalidRange",
            message,
            Content_Range=f"bytes */{size}",
        )
    return max(start, 0), min(end, size)


def _attributes(headers: Mapping[str, str], bucket: str, name: str) -> dict[str, Any]:
    """Returns an object's attributes from an XML request's headers."""
    attributes: dict[str, Any] = {"bucket": bucket, "name": name}
    for key, header in {**_HEADERS, "contentType": "Content-Type"}.items():
        if header in headers:
            attributes[key] = headers[header]
    prefix = "x-goog-meta-"
    metadata = {
        header.lower().removeprefix(prefix): value
        for header, value in headers.items()
        if header.lower().startswith(prefix)
    }
    return attributes | ({"metadata": metadata} if metadata else {})


def _entity_headers(found: Object) -> dict[str, str]:
    attributes = found.attributes
    hashes = [f"crc32c={attributes['crc32c']}"]
    hashes += [f"md5={attributes['md5Hash']}"] if "md5Hash" in attributes else []
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": attributes["contentType"],
        "ETag": f'"{attributes["etag"]}"',
        "X-Goog-Generation": attributes["generation"],
        "X-Goog-Metageneration": attributes["metageneration"],
        "X-Goog-Hash": ",".join(hashes),
        "X-Goog-Stored-Content-Length": attributes["size"],
        "X-Goog-Stored-Content-Encoding": attributes.get("contentEncoding", "identity"),
    }
    headers |= {header: attributes[key] for key, header in _HEADERS.items() if key in attributes}
    metadata = attributes.get("metadata") or {}
    return headers | {f"X-Goog-Meta-{key}": value for key, value in metadata.items()}


def _check_hashes(headers: Mapping[str, str], attributes: dict[str, Any], upload: Upload) -> None:
    """Checks the sender's hashes of the bytes, which may be in several places."""
    named = dict(
        pair.strip().split("=", 1)
        for pair in headers.get("X-Goog-Hash", "").split(",")
        if pair.strip()
    )
    for key, values in {
        "md5Hash": (attributes.get("md5Hash"), headers.get("Content-MD5"), named.get("md5")),
        "crc32c": (attributes.get("crc32c"), named.get("crc32c")),
    }.items():
        got = upload.hashes[key]
        for wanted in values:
            if wanted and wanted != got:
                raise _invalid(
                    f'Provided {key} "{wanted}" doesn\'t match calculated {key} "{got}".',
                    code="BadDigest",
                )


def _parts_of(body: bytes) -> list[tuple[int, str]]:
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 a local client's own request
        rows = [element for element in root if element.tag.rpartition("}")[2] == "Part"]
        fields = [{child.tag.rpartition("}")[2]: child.text or "" for child in row} for row in rows]
        return [(int(part["PartNumber"]), part["ETag"].strip()) for part in fields]
    except (ElementTree.ParseError, KeyError, ValueError):
        raise _invalid(
            "The list of parts is malformed.", code="MalformedCompleteMultipartUpload"
        ) from None
