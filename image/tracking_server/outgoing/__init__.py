"""The connections that the server makes itself, for Google and for callers."""
