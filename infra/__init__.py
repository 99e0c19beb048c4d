"""What is declared on Google Cloud: one module per thing, its access rules inside it."""
