"""MLflow's tracking server as Cloud Run runs it: secrets at boot, a gate in front."""
