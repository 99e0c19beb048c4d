"""Outgoing connections, to Google and to addresses that callers choose."""
