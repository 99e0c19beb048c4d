"""Stand-ins for Google Cloud on this computer, for `make local` and the tests."""
