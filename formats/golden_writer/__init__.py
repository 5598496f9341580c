"""Sources of the golden files: a second writer, the valid files, the invalid files."""
