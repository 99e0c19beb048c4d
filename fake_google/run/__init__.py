"""Cloud Run: services, and the processes of their containers."""
