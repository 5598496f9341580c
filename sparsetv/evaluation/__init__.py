"""Accuracy of a model on a task's data."""
