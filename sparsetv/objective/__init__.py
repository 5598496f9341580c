"""A live model between base and fine-tune: its tensors in scope, what is asked of it, and gradients of that."""
