"""What happens before the first request: settings, secrets, the database's schema."""
