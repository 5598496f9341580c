"""Examples of a task: read from files or data sets, sampled by class, and made into batches that a model takes."""
