"""Features x texts -> logits: pure functions of tensors, without Ray, files or settings."""
