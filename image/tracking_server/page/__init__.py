"""Serves the files of MLflow's page."""
