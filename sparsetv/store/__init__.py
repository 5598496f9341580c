"""A library of many tasks of one base: immutable objects named by their hash, small refs that name them."""
