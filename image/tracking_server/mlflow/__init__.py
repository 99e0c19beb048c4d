"""MLflow's two applications, and every private name of MLflow's."""
