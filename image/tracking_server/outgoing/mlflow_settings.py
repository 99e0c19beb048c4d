"""MLflow's own settings for the addresses that callers give it."""

from collections.abc import Collection, Mapping

from tracking_server.boot.settings import Network

PROVIDERS = (
    "anthropic",
    "azure",
    "bedrock",
    "deepseek",
    "gemini",
    "groq",
    "mistral",
    "ollama",
    "openai",
    "openrouter",
    "portkey",
    "typesafe",
    "vertex_ai",
    "xai",
)
"""Providers that work with the packages in the container. Databricks is left out: its SDK searches
the server for credentials, and blocks the whole server while it connects to a caller's address."""


def outgoing_settings(internal_networks: Collection[Network]) -> Mapping[str, str]:
    """Returns settings with which MLflow allows what `egress` allows.

    With internal networks, `egress` decides which addresses are allowed. HTTPS is rare there.
    """
    inside = "true" if internal_networks else "false"
    schemes = "http,https" if internal_networks else "https"
    return {
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": inside,
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": schemes,
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": inside,
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": schemes,
        "MLFLOW_GATEWAY_ALLOWED_PROVIDERS": ",".join(PROVIDERS),
    }
