"""Prefix-tuning BART (and other encoder-decoders) for summarisation."""
