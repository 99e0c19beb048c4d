"""The HTTP server, its processes, threads and memory."""
