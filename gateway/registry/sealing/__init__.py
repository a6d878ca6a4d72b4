"""What blobs look like at rest: as they are, or encrypted.

forms    the two of them, as one interface
keys     of the settings, as they are now
sealed   AES-GCM in chunks, under these keys
copies   plain copies in anonymous memory, for processes that read files
"""
