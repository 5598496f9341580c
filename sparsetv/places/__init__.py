"""Where the tensors of a checkpoint lie in a live module, whatever transformers renames or fuses on load."""
