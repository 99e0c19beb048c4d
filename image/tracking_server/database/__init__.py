"""The connections to Postgres, their limits and their errors."""
