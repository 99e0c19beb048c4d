"""The deployment that `__main__.py` declares, made real on this computer."""
