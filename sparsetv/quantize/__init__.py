"""Lossy value encodings: what a kept delta is rounded to before it is stored."""
