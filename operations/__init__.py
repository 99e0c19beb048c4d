"""The commands for a deployed stack: `make open`, `env`, `logs`, `status` and others."""
