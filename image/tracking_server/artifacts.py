"""Google Cloud Storage for MLflow's proxied artifacts, without a private key in the container.

MLflow's own repository signs URLs with the credentials' private key, which Cloud Run's do not
have, and copies what it passes on to a temporary file, which on Cloud Run is memory. This
plug-in, found through the entry point `mlflow.artifact_repository`, signs with the IAM API, so
that MLflow's client moves large files straight to and from the bucket, and streams the rest.
"""

import base64
import os
import posixpath
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import BinaryIO
from urllib.parse import quote

import anyio.to_thread
from google.auth import compute_engine
from google.auth.credentials import Signing
from google.auth.exceptions import TransportError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from google.cloud.storage.fileio import BlobWriter
from google.resumable_media.requests import XMLMPUContainer
from mlflow.entities.multipart_upload import (
    CreateMultipartUploadResponse,
    MultipartUploadCredential,
)
from mlflow.entities.presigned_download import PresignedDownloadUrlResponse
from mlflow.entities.presigned_upload import CreatePresignedUploadResponse
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import (
    MultipartDownloadMixin,
    PresignedUploadMixin,
    StreamUploadMixin,
)
from mlflow.store.artifact.gcs_artifact_repo import GCSArtifactRepository, GCSMPUArguments

from tracking_server import mlflow_internals

CHUNK = 2 * 1024 * 1024
"""Bytes held of each transfer; a multiple of 256 KiB, as a resumable upload wants it:
https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload"""

IN_TRANSIT = 8
"""Chunks on their way to or from the bucket at a time: meanwhile each is held up to four times
over. Nobody waits for another's client, only for the bucket."""

PART_LIFETIME = timedelta(hours=1)
"""For which a client may send the parts of a large file, as in MLflow's own repository."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SIGNERS = 16


class KeylessCredentials(compute_engine.Credentials, Signing):
    """The service account's credentials, signing through IAM's signBlob.

    Needs roles/iam.serviceAccountTokenCreator of the account on itself:
    https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signBlob
    """

    @property
    def signer(self) -> "KeylessCredentials":
        return self

    @property
    def signer_email(self) -> str:
        if not self.valid:
            self.refresh(Request())  # the metadata server tells the address with the token
        return str(self.service_account_email)

    def sign_bytes(self, message: bytes) -> bytes:
        endpoint = os.environ.get(
            "IAM_CREDENTIALS_ENDPOINT", "https://iamcredentials.googleapis.com"
        )
        email = self.signer_email
        response = self._session().post(
            f"{endpoint}/v1/projects/-/serviceAccounts/{email}:signBlob",
            json={"payload": base64.b64encode(message).decode()},
            timeout=30,
        )
        if response.status_code != 200:
            raise TransportError(
                f"signBlob for {email} answers {response.status_code}: has the account "
                "roles/iam.serviceAccountTokenCreator on itself?"
            )
        return base64.b64decode(response.json()["signedBlob"])

    @cache  # noqa: B019 (lives as long as the process, like its one instance)
    def _session(self) -> AuthorizedSession:
        return AuthorizedSession(self)


@cache
def _client() -> storage.Client:
    """One client for the process: MLflow makes a repository for many of its requests."""
    return storage.Client(
        project=os.environ["GCP_PROJECT"], credentials=KeylessCredentials(scopes=[_SCOPE])
    )


@cache
def _in_transit() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(IN_TRANSIT)


class KeylessGCSArtifactRepository(
    GCSArtifactRepository, StreamUploadMixin, MultipartDownloadMixin, PresignedUploadMixin
):
    """MLflow's repository for `gs://`, with our credentials, streams and signed addresses."""

    def __init__(
        self,
        artifact_uri: str,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        super().__init__(
            artifact_uri, client=_client(), tracking_uri=tracking_uri, registry_uri=registry_uri
        )

    def existing(self, path: str) -> storage.Blob:
        """The object as it is now: a later generation of it doesn't mix into a download.

        Raises:
            MlflowException: RESOURCE_DOES_NOT_EXIST, which MLflow answers as 404.
        """
        blob = self._blob(path)
        found = blob.bucket.get_blob(blob.name, timeout=self._GCS_DEFAULT_TIMEOUT)
        if found is None:
            raise MlflowException(f"No such artifact: {path!r}", RESOURCE_DOES_NOT_EXIST)
        return found

    async def stream(self, blob: storage.Blob) -> AsyncIterator[bytes]:
        """The object's bytes, in ranges: none is fetched before the last one was taken."""
        for start in range(0, blob.size, CHUNK):
            yield await anyio.to_thread.run_sync(self._range, blob, start, limiter=_in_transit())

    def _range(self, blob: storage.Blob, start: int) -> bytes:
        end = min(start + CHUNK, blob.size) - 1
        # Without a checksum: Google knows that of the whole object alone.
        data: bytes = blob.download_as_bytes(
            start=start, end=end, checksum=None, timeout=self._GCS_DEFAULT_TIMEOUT
        )
        return data

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        with self._writer(artifact_file_name, artifact_path) as writer:
            while chunk := stream.read(CHUNK):
                writer.write(chunk)

    async def log_artifact_from_async_stream(
        self,
        chunks: AsyncIterable[bytes],
        artifact_file_name: str,
        artifact_path: str | None = None,
    ) -> None:
        writer = self._writer(artifact_file_name, artifact_path)
        try:
            await _write(writer, chunks)
            await anyio.to_thread.run_sync(writer.close, limiter=_in_transit())
        except BaseException:
            # A client that went away leaves no object, and no session waiting for the rest.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writer.terminate)
            raise

    def get_download_presigned_url(
        self, artifact_path: str, expiration: int = 300
    ) -> PresignedDownloadUrlResponse:
        blob = self.existing(artifact_path)
        # The page opens the address: what a browser can show would take the page's place.
        name = quote(posixpath.basename(artifact_path), safe="")
        url = blob.generate_signed_url(
            version="v4",
            method="GET",
            expiration=timedelta(seconds=expiration),
            response_disposition=f"attachment; filename*=UTF-8''{name}",
        )
        return PresignedDownloadUrlResponse(url=url, headers={}, file_size=blob.size)

    def create_presigned_upload_url(
        self, artifact_path: str, expiration: int = 900
    ) -> CreatePresignedUploadResponse:
        url = self._blob(artifact_path).generate_signed_url(
            version="v4", method="PUT", expiration=timedelta(seconds=expiration)
        )
        return CreatePresignedUploadResponse(presigned_url=url)

    def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> CreateMultipartUploadResponse:
        """As MLflow's, but for the parts' addresses, of which each takes a call to sign."""
        blob = self._blob(_path(local_file, artifact_path))
        arguments = self._gcs_mpu_arguments(local_file, blob)
        upload = XMLMPUContainer(arguments.url, local_file, headers=arguments.headers)
        upload.initiate(transport=arguments.transport, content_type=arguments.content_type)

        def part(number: int) -> MultipartUploadCredential:
            url = blob.generate_signed_url(
                version="v4",
                method="PUT",
                expiration=PART_LIFETIME,
                query_parameters={"partNumber": number, "uploadId": upload.upload_id},
            )
            return MultipartUploadCredential(url=url, part_number=number, headers={})

        with ThreadPoolExecutor(_SIGNERS, thread_name_prefix="sign") as signers:
            credentials = list(signers.map(part, range(1, num_parts + 1)))
        return CreateMultipartUploadResponse(upload_id=upload.upload_id, credentials=credentials)

    @staticmethod
    def _gcs_mpu_arguments(filename: str, blob: storage.Blob) -> GCSMPUArguments:
        """MLflow's puts the name into the URL as it is, whatever is in it."""
        arguments = GCSArtifactRepository._gcs_mpu_arguments(filename, blob)
        return arguments._replace(
            url=arguments.url.removesuffix(blob.name) + quote(blob.name, safe="/~")
        )

    def _blob(self, path: str) -> storage.Blob:
        bucket, root = self.parse_gcs_uri(self.artifact_uri)
        return self._get_bucket(bucket).blob(posixpath.join(root, path))

    def _writer(self, file_name: str, artifact_path: str | None) -> BlobWriter:
        return BlobWriter(
            self._blob(_path(file_name, artifact_path)),
            chunk_size=CHUNK,
            content_type=mlflow_internals.mime_type(file_name),
            timeout=self._GCS_DEFAULT_TIMEOUT,
        )


def _path(file_name: str, folder: str | None) -> str:
    """Where MLflow wants a file: its folders on the client's computer don't count."""
    return posixpath.join(folder or "", posixpath.basename(file_name))


async def _write(writer: BlobWriter, chunks: AsyncIterable[bytes]) -> None:
    """Small chunks, such as HTTP/2 has, are joined: one hop to a thread for all of them."""
    waiting: list[bytes] = []
    size = 0

    async def write() -> None:
        await anyio.to_thread.run_sync(writer.write, b"".join(waiting), limiter=_in_transit())

    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= CHUNK:
            await write()
            waiting, size = [], 0
    await write()
