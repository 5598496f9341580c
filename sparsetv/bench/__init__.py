"""Measuring storage, recovery, merging, continual addition and time over anybody's base, fine-tunes and data."""
