"""Summarisation with BART: prefixes on its three kinds of attention."""
