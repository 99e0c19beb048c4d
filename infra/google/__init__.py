"""The Google Cloud resources: one module for each, with its access rules."""
