"""Store fine-tuned models as small, exact, checked sparse task vectors, and stitch them onto the base."""

__version__ = "0.1.0"
