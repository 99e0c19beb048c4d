"""`python -m operations.doctor`: checks for anything that would make `pulumi up` fail."""
