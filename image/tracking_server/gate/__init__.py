"""What a request passes before MLflow: login, viewer's rights and limits."""
