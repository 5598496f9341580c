"""Task vectors on models that are in memory."""
