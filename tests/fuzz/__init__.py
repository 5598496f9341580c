"""Fuzzing: mutated input of every kind that the package reads, and what it may do with it."""
