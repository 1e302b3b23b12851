"""Architectures and checkpoints in Hugging Face format, the tokenizer, the rollout engine. Torch lives here."""
