"""The Google Cloud resources: a file for each, with its access rules."""
