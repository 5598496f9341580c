"""The crash matrix: every command that changes the disk, under every trouble at every call."""
