"""A login for each person: who a request comes from, and what MLflow's permissions allow it."""
