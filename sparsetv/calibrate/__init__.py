"""Scales that make up for what the mask dropped."""
