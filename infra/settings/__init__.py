"""The stack's settings: their types, the code that reads them, and the rules between them."""
