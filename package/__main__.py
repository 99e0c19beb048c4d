"""Serves the component to Pulumi, which starts this for programs in other languages."""

from mlflow_gcp.facts import versions
from mlflow_gcp.google.image import SOURCE
from mlflow_gcp.package import TrackingServer
from pulumi.provider.experimental import component_provider_host

if __name__ == "__main__":
    component_provider_host(
        components=[TrackingServer], name="mlflow-gcp", version=versions.semantic(SOURCE)
    )
