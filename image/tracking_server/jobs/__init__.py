"""The worker that runs MLflow's background jobs, with the server's image, next to the server."""
