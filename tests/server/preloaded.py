"""Imports most of what a boot imports. None of it reads the server's settings while imported.

MLflow's server and Google's libraries do read settings, so each server imports them itself.
"""

import gc

from tracking_server.mlflow import lazy_pandas

# As in a boot, see tracking_server/__main__.py.
gc.disable()

import fastapi  # noqa: E402, F401
import flask  # noqa: E402, F401
import granian  # noqa: E402, F401
import graphene  # noqa: E402, F401

with lazy_pandas.only_named():
    import mlflow.genai
    import mlflow.store.db.utils
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

gc.freeze()
gc.enable()
