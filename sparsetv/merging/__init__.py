"""Dense merging of whole fine-tunes: what sparse stitching is measured against."""
