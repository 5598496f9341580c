"""Task files on the Hugging Face hub: their ids, how they come here and go there, and what the hub's errors mean."""
