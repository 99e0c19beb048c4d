"""Cloud Run: services, and their containers' processes."""
