"""Prefix-tuning GPT-2 (and other decoders) for table-to-text generation."""
