"""Hugging Face checkpoints as named tensors: found, checked, read lazily, written."""
