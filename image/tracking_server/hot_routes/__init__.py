"""Responds to the calls that training makes with single SQL statements, without MLflow's ORM."""
