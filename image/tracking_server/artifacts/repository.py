"""MLflow's artifact repository for Cloud Storage, without a private key in the container.

MLflow's own repository signs URLs with the private key of its credentials, which Cloud Run's
credentials don't have. It also copies files that pass through to a temporary file, which on Cloud
Run is memory. This plug-in, found through the entry point `mlflow.artifact_repository`, signs URLs
with the IAM API, so that MLflow's client moves large files directly to and from the bucket.
`transfers` streams the others.
"""

import base64
import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from urllib.parse import quote

from flask import has_request_context, request
from google.api_core.exceptions import NotFound
from google.auth import compute_engine
from google.auth.credentials import Signing
from google.auth.exceptions import TransportError
from google.cloud import storage
from google.resumable_media import InvalidResponse
from google.resumable_media.requests import XMLMPUContainer
from mlflow.entities import FileInfo, TraceData
from mlflow.entities.multipart_upload import (
    CreateMultipartUploadResponse,
    MultipartUploadCredential,
    MultipartUploadPart,
)
from mlflow.entities.presigned_download import PresignedDownloadUrlResponse
from mlflow.entities.presigned_upload import CreatePresignedUploadResponse
from mlflow.environment_variables import MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.store.artifact.artifact_repo import MultipartDownloadMixin, PresignedUploadMixin
from mlflow.store.artifact.gcs_artifact_repo import GCSArtifactRepository, GCSMPUArguments

from tracking_server.artifacts import streamed_response
from tracking_server.client_disconnect import has_left
from tracking_server.database.result_limits import ANSWER, Full, TooLarge
from tracking_server.outgoing.google_api import own_session, server_credentials

LONGEST = 12 * 3600
"""Seconds for which Google verifies signatures of signBlob:
https://cloud.google.com/storage/docs/authentication/creating-signatures
The client gets all addresses of an upload's parts at its start, so this is the most time for it."""

SLOWEST = 10_000_000 // 8
"""Bytes per second of the slowest client whose download doesn't outlive its address: 10 Mbit/s.
MLflow's client asks for another address if parts fail, so slower downloads take longer."""

PRESIGNED, PROXIED = "/mlflow-artifacts/presigned/", "/mlflow-artifacts/artifacts/"
"""Parts of the paths at which MLflow's client asks for a file's address, and gets the file."""

MAX_LISTED = 100_000
"""Files and folders that are listed for one folder; the list takes some 50 MB."""

_SIGNERS = 16
_SLICE = 128
"""Parts that are signed between checks whether the client is still connected."""


class UrlSigner(Signing):
    """Signs as another service account, through IAM's signBlob, with the server's own token.

    It is another account because one that may sign as itself can create new access tokens for
    itself. The server's account needs iam.serviceAccounts.signBlob on it:
    https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signBlob
    """

    def __init__(self, email: str, server: compute_engine.Credentials) -> None:
        self._email = email
        self._server = server
        self._session = own_session(server)

    @property
    def signer(self) -> "UrlSigner":
        return self

    @property
    def signer_email(self) -> str:
        return self._email

    def sign_bytes(self, message: bytes) -> bytes:
        endpoint = os.environ.get(
            "IAM_CREDENTIALS_ENDPOINT", "https://iamcredentials.googleapis.com"
        )
        response = self._session.post(
            f"{endpoint}/v1/projects/-/serviceAccounts/{self._email}:signBlob",
            json={"payload": base64.b64encode(message).decode()},
            timeout=30,
        )
        if response.status_code != 200:
            raise TransportError(
                f"signBlob for {self._email} responds with {response.status_code}: does "
                f"{self._server.service_account_email} have a role on that account with the "
                "permission iam.serviceAccounts.signBlob? `pulumi up --refresh` grants it"
            )
        return base64.b64decode(response.json()["signedBlob"])


@cache
def credentials() -> compute_engine.Credentials:
    return server_credentials()


@cache
def url_signer() -> UrlSigner:
    return UrlSigner(os.environ["ARTIFACT_SIGNER"], credentials())


@cache
def _client() -> storage.Client:
    """Returns the process's one client: MLflow creates a repository for many of its requests."""
    own = credentials()
    return storage.Client(
        project=os.environ["GCP_PROJECT"], credentials=own, _http=own_session(own)
    )


class KeylessGCSArtifactRepository(
    GCSArtifactRepository, MultipartDownloadMixin, PresignedUploadMixin
):
    """MLflow's repository for `gs://`, with the server's credentials and signed URLs."""

    def __init__(
        self,
        artifact_uri: str,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        super().__init__(
            artifact_uri, client=_client(), tracking_uri=tracking_uri, registry_uri=registry_uri
        )

    def blob(self, path: str) -> storage.Blob:
        bucket, root = self.parse_gcs_uri(self.artifact_uri)
        return self._get_bucket(bucket).blob(posixpath.join(root, _inside(path)))

    def existing(self, path: str) -> storage.Blob:
        """Returns the object with its current size and generation.

        Raises:
            MlflowException: if it doesn't exist.
        """
        blob = self.blob(path)
        found = blob.bucket.get_blob(blob.name, timeout=self._GCS_DEFAULT_TIMEOUT)
        if found is None:
            raise self.absence(path)
        return found

    def absence(self, path: str) -> MlflowException:
        """Returns MLflow's error for a missing file, or for a path that is a directory."""
        blob = self.blob(path)
        inside = blob.bucket.list_blobs(
            prefix=_folder(blob.name), max_results=1, timeout=self._GCS_DEFAULT_TIMEOUT
        )
        if any(inside):
            message = f"Artifact path refers to a directory, not a file: '{path}'"
            return MlflowException(message, INVALID_PARAMETER_VALUE)
        return _no_such(path)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a folder as MLflow does, but with one request instead of two.

        It also works at the root of a bucket, where MLflow's own method finds nothing and cuts the
        first letter off the names below.
        """
        bucket, root = self.parse_gcs_uri(self.artifact_uri)
        above = _folder(root)
        prefix = _folder(posixpath.join(root, _inside(path or "")))
        listed = self._get_bucket(bucket).list_blobs(
            prefix=prefix, delimiter="/", timeout=self._GCS_DEFAULT_TIMEOUT
        )
        infos: list[FileInfo] = []
        for blob in listed:
            _count(len(blob.name), rows=1)
            if blob.name != prefix:
                infos.append(FileInfo(blob.name.removeprefix(above), False, blob.size))
            if len(infos) + len(listed.prefixes) > MAX_LISTED:
                raise MlflowException(
                    f"{path or 'The folder'} has more than {MAX_LISTED} files and folders: list "
                    "its folders one by one, or use gcloud storage ls",
                    INVALID_PARAMETER_VALUE,
                )
        infos += [
            FileInfo(name.removeprefix(above).removesuffix("/"), True, None)
            for name in listed.prefixes
        ]
        return sorted(infos, key=lambda info: info.path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete as MLflow does, but without naming the generation, which deletes permanently.

        Without a generation the bucket keeps the object as a noncurrent version:
        https://cloud.google.com/storage/docs/json_api/v1/objects/delete
        """
        bucket_name, root = self.parse_gcs_uri(self.artifact_uri)
        if artifact_path and not _inside(artifact_path):
            raise MlflowException(f"{artifact_path!r} names no artifact", INVALID_PARAMETER_VALUE)
        name = posixpath.join(root, _inside(artifact_path)) if artifact_path else root
        bucket = self._get_bucket(bucket_name)
        for blob in bucket.list_blobs(prefix=name, timeout=self._GCS_DEFAULT_TIMEOUT):
            if blob.name == name or blob.name.startswith(_folder(name)):
                # Someone else has deleted it, or an earlier attempt whose response got lost.
                with suppress(NotFound):
                    bucket.delete_blob(blob.name, timeout=self._GCS_DEFAULT_TIMEOUT)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        """Download as MLflow does, and count the file, which on Cloud Run is in memory.

        Only traces that are stored as artifacts are read this way; other files are streamed.
        """
        blob = self.existing(remote_file_path)
        _count(blob.size or 0, rows=0)
        try:
            super()._download_file(remote_file_path, local_path)
        except NotFound:
            raise _no_such(remote_file_path) from None

    def download_archived_trace_data(self) -> TraceData:
        """Read archived spans as MLflow does, but fail if the bucket does.

        MLflow returns a trace without spans after any error.
        """
        from mlflow.tracing.otel.otel_archival import (
            TRACE_ARCHIVAL_FILENAME,
            traces_data_pb_to_spans,
        )

        blob = self.blob(TRACE_ARCHIVAL_FILENAME)
        found = blob.bucket.get_blob(blob.name, timeout=self._GCS_DEFAULT_TIMEOUT)
        if found is None:
            return TraceData(spans=[])
        _count(found.size or 0, rows=0)
        data = found.download_as_bytes(timeout=self._GCS_DEFAULT_TIMEOUT)
        return TraceData(spans=traces_data_pb_to_spans(data))

    def get_local_path(self, artifact_path: str) -> None:
        """Stream the object instead, if MLflow asks for a local path in order to send a file."""
        if expected := streamed_response.awaited():
            streamed_response.give(self.existing(artifact_path), expected)

    def get_download_presigned_url(
        self, artifact_path: str, expiration: int = 300
    ) -> PresignedDownloadUrlResponse:
        """Returns a signed URL; for a small file that a client asks for, the server's own.

        MLflow's client asks before every download. Without a size in the response it downloads
        through the server, as it uploads small files.
        """
        blob = self.existing(artifact_path)
        if has_request_context() and PRESIGNED in request.path:
            if blob.size < MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE.get():
                path = quote(request.path.replace(PRESIGNED, PROXIED, 1))
                return PresignedDownloadUrlResponse(url=path, headers={})
            expiration = download_lifetime(blob.size, at_least=expiration)
        # The page opens this URL. A file that the browser can show would replace the page.
        name = quote(posixpath.basename(artifact_path), safe="")
        url = blob.generate_signed_url(
            version="v4",
            credentials=url_signer(),
            method="GET",
            expiration=timedelta(seconds=expiration),
            response_disposition=f"attachment; filename*=UTF-8''{name}",
        )
        return PresignedDownloadUrlResponse(url=url, headers={}, file_size=blob.size)

    def create_presigned_upload_url(
        self, artifact_path: str, expiration: int = 900
    ) -> CreatePresignedUploadResponse:
        url = self.blob(artifact_path).generate_signed_url(
            version="v4",
            credentials=url_signer(),
            method="PUT",
            expiration=timedelta(seconds=expiration),
        )
        return CreatePresignedUploadResponse(presigned_url=url)

    def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> CreateMultipartUploadResponse:
        """Start an upload as MLflow does, but sign the parts' URLs in parallel."""
        blob = self.blob(_path(local_file, artifact_path))
        arguments = self._gcs_mpu_arguments(local_file, blob)
        upload = XMLMPUContainer(arguments.url, local_file, headers=arguments.headers)
        upload.initiate(transport=arguments.transport, content_type=arguments.content_type)

        signing = url_signer()  # once, before the threads ask for it

        def part(number: int) -> MultipartUploadCredential:
            url = blob.generate_signed_url(
                version="v4",
                credentials=signing,
                method="PUT",
                expiration=timedelta(seconds=LONGEST),
                query_parameters={"partNumber": number, "uploadId": upload.upload_id},
            )
            return MultipartUploadCredential(url=url, part_number=number, headers={})

        credentials: list[MultipartUploadCredential] = []
        with ThreadPoolExecutor(_SIGNERS, thread_name_prefix="sign") as signers:
            for first in range(1, num_parts + 1, _SLICE):
                if has_left():
                    self.abort_multipart_upload(local_file, upload.upload_id, artifact_path)
                    raise MlflowException("The client has disconnected", INVALID_PARAMETER_VALUE)
                after = min(first + _SLICE, num_parts + 1)
                credentials += signers.map(part, range(first, after))
        return CreateMultipartUploadResponse(upload_id=upload.upload_id, credentials=credentials)

    def complete_multipart_upload(
        self,
        local_file: str,
        upload_id: str,
        parts: list[MultipartUploadPart] | None = None,
        artifact_path: str | None = None,
    ) -> None:
        with _refused_upload():
            super().complete_multipart_upload(local_file, upload_id, parts or [], artifact_path)

    def abort_multipart_upload(
        self, local_file: str, upload_id: str, artifact_path: str | None = None
    ) -> None:
        with _refused_upload():
            super().abort_multipart_upload(local_file, upload_id, artifact_path)

    @staticmethod
    def _gcs_mpu_arguments(filename: str, blob: storage.Blob) -> GCSMPUArguments:
        """Quote the name in the URL, which MLflow's own method doesn't."""
        arguments = GCSArtifactRepository._gcs_mpu_arguments(filename, blob)
        return arguments._replace(
            url=arguments.url.removesuffix(blob.name) + quote(blob.name, safe="/~")
        )


def download_lifetime(size: int, *, at_least: int) -> int:
    """Returns the seconds for which the address of a file of that size is valid."""
    return max(at_least, min(size // SLOWEST, LONGEST))


def _count(size: int, rows: int) -> None:
    """Count what the bucket returns for a request in the same way as query results.

    Raises:
        MlflowException: if it exceeds the memory.
    """
    answer = ANSWER.get()
    if answer is None:
        return
    try:
        answer.add(size, rows)
    except TooLarge:
        raise MlflowException(
            "The files, or their list, are larger than this server's memory allows: use the bucket "
            "directly, with gcloud storage",
            INVALID_PARAMETER_VALUE,
        ) from None
    except Full:
        raise MlflowException(
            "Other requests use all of the server's memory: try again in a moment",
            TEMPORARILY_UNAVAILABLE,
        ) from None


def _no_such(path: str) -> MlflowException:
    return MlflowException(f"No such artifact: {path!r}", RESOURCE_DOES_NOT_EXIST)


@contextmanager
def _refused_upload() -> Iterator[None]:
    """Convert a refusal of the bucket to MLflow's exception, which its handlers respond to."""
    try:
        yield
    except InvalidResponse as error:
        status = error.response.status_code
        if status == 404:
            message = "There is no such upload: it was completed or aborted, or never started"
            raise MlflowException(message, RESOURCE_DOES_NOT_EXIST) from error
        code = INVALID_PARAMETER_VALUE if 400 <= status < 500 else TEMPORARILY_UNAVAILABLE
        raise MlflowException(f"The bucket responds to the upload with {status}", code) from error


def _folder(path: str) -> str:
    """Returns the prefix of a folder's objects, or an empty string for the whole bucket."""
    return f"{path.rstrip('/')}/" if path else ""


def _inside(path: str) -> str:
    """Returns the path without the parts `.`, which mean nothing in the names of objects."""
    return "/".join(part for part in path.split("/") if part != ".")


def _path(file_name: str, folder: str | None) -> str:
    """Returns the path of an uploaded file, without its folders on the client's computer."""
    return posixpath.join(folder or "", posixpath.basename(file_name))
