"""Task vectors in the forms of other tools: one file per form."""
