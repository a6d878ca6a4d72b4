"""Immutable versions: files by digest, a manifest whose digest is the version, and names that point at them."""
