"""Cloud SQL: instances, and the PostgreSQL servers behind them."""
