"""MLflow's tracking server for Cloud Run: it reads its secrets at boot and has a gate in front."""
