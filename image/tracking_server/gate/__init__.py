"""The layers in front of MLflow: login, viewer's rights and limits."""
