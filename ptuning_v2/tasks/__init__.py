"""The five families of tasks: their data, metrics and submission files."""
