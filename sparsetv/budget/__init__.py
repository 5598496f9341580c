"""From a number of bytes to entries and bits: rate-distortion over the whole task vector."""
