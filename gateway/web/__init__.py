"""HTTP: bytes in, bytes out. Everything behind it knows no status code."""
