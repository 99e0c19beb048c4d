"""MLflow's page: its static files, and compressed responses to its requests."""
