"""Batch scoring: a file of rows in, a file of answers out, by the bytes, codec and runtime that answer online."""
