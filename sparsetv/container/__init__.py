"""The task file: bytes in, SparseTaskVector out, and back (formats/SPEC.md)."""
