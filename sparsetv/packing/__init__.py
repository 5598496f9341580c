"""From a mask to a sparse task vector: values, corrections, and all that the base lacks."""
