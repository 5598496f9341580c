"""Lossless archives of a whole checkpoint against its base (formats/ARCHIVE.md)."""
