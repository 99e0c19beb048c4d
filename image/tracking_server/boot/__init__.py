"""The steps before the first request: settings, secrets, the database's schema."""
