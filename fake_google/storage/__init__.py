"""Cloud Storage: objects, the API and signed URLs."""
