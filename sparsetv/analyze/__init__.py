"""Where masks fall, and what tasks share."""
