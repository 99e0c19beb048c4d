"""Google Cloud Storage for MLflow's proxied artifacts, without a private key in the container.

MLflow's own repository signs URLs with the credentials' private key, which Cloud Run's do not
have, and copies every upload to a temporary file, which on Cloud Run is memory. This plug-in,
found through the entry point `mlflow.artifact_repository`, signs with the IAM API and passes
uploads on as they arrive.
"""

import base64
import os
import posixpath
from collections.abc import AsyncIterable
from functools import cache
from typing import Any, BinaryIO

import anyio.to_thread
from google.auth import compute_engine
from google.auth.credentials import Signing
from google.auth.exceptions import TransportError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from google.cloud.storage.fileio import BlobWriter
from mlflow.store.artifact.artifact_repo import StreamUploadMixin
from mlflow.store.artifact.gcs_artifact_repo import GCSArtifactRepository
from mlflow.utils.mime_type_utils import _guess_mime_type

UPLOAD_CHUNK = 8 * 1024 * 1024
"""Bytes held of each upload; a multiple of 256 KiB, as a resumable upload wants it:
https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload"""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


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
        with AuthorizedSession(self) as session:
            response = session.post(
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


@cache
def _client() -> storage.Client:
    """One client for the process: MLflow makes a repository for many of its requests."""
    return storage.Client(
        project=os.environ["GCP_PROJECT"], credentials=KeylessCredentials(scopes=[_SCOPE])
    )


class KeylessGCSArtifactRepository(GCSArtifactRepository, StreamUploadMixin):
    """MLflow's repository for `gs://`, with our credentials and streamed uploads."""

    def __init__(
        self,
        artifact_uri: str,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
    ) -> None:
        super().__init__(
            artifact_uri, client=_client(), tracking_uri=tracking_uri, registry_uri=registry_uri
        )

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        with self._writer(artifact_file_name, artifact_path) as writer:
            while chunk := stream.read(UPLOAD_CHUNK):
                writer.write(chunk)

    async def log_artifact_from_async_stream(
        self,
        chunks: AsyncIterable[bytes],
        artifact_file_name: str,
        artifact_path: str | None = None,
    ) -> None:
        writer = self._writer(artifact_file_name, artifact_path)
        waiting: list[bytes] = []
        size = 0
        try:
            async for chunk in chunks:
                waiting.append(chunk)
                size += len(chunk)
                if size >= UPLOAD_CHUNK:
                    # The small chunks of HTTP/2 joined: one hop to a thread for all of them.
                    await anyio.to_thread.run_sync(writer.write, b"".join(waiting))
                    waiting, size = [], 0
            writer.write(b"".join(waiting))
            await anyio.to_thread.run_sync(writer.close)
        except BaseException:
            # A client that went away leaves no object, and no session that waits for the rest.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writer.terminate)
            raise

    def _writer(self, file_name: str, artifact_path: str | None) -> BlobWriter:
        bucket, root = self.parse_gcs_uri(self.artifact_uri)
        name = posixpath.join(root, artifact_path or "", posixpath.basename(file_name))
        settings: dict[str, Any] = {"timeout": self._GCS_DEFAULT_TIMEOUT}
        return BlobWriter(
            self._get_bucket(bucket).blob(name),
            chunk_size=UPLOAD_CHUNK,
            content_type=_guess_mime_type(file_name),
            **settings,
        )
