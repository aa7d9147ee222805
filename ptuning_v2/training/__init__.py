"""The training loops: transformers' Trainer, keeping the best epoch."""
