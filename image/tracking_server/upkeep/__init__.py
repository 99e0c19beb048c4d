"""The upkeep job: permanently deletes what has been deleted for long enough."""
