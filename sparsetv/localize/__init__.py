"""Localizers: from a task vector to the mask of entries that carry the skill."""
