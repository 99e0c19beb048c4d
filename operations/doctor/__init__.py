"""`python -m operations.doctor`: what would stop `pulumi up`, looked at before it."""
