"""Commands for a stack: what `make open`, `env`, `logs` and their neighbours do."""
