"""Artifacts: MLflow's repository for the bucket, and transfers through the server."""
