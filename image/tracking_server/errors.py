"""The one exception that ends a boot."""


class BootError(Exception):
    """The server can't start.

    Its text is one line for the person who reads the log: what is wrong and how to mend it,
    never a secret's value.
    """
