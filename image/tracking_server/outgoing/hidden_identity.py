"""Keeps the server's Google identity from MLflow.

MLflow searches for credentials with `google.auth.default`, for example when a Vertex AI endpoint of
the gateway has none, and would send the server's token to an address that a caller chose.
"""

import os

_NO_SUCH_FILE = "/nonexistent/MLflow-has-no-Google-credentials"


def hide_from_mlflow() -> None:
    """Make google-auth's search for credentials fail.

    https://google-auth.readthedocs.io/en/stable/reference/google.auth.html#google.auth.default
    """
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = _NO_SUCH_FILE
    # If that variable is removed again, google-auth still doesn't ask the metadata server.
    os.environ["NO_GCE_CHECK"] = "true"
