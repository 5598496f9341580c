"""Strict JSON and safetensors headers, shared by task files and checkpoints."""
