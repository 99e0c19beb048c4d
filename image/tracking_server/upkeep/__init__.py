"""The upkeep job: deletes permanently what users deleted long ago, and archives old traces."""
