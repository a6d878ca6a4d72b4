"""Bytes to arrays and back: JSON, binary tensors, and the signature's say on both. Pure."""
