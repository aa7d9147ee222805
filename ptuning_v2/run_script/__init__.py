"""Runs with the original's hyper-parameters."""
