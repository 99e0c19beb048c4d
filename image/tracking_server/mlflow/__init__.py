"""The code around MLflow's two applications, and all uses of MLflow's private names."""
