"""The demo that needs no download: a small vision transformer, six fine-tunes, and a picture of the outcome."""
