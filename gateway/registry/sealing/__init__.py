"""What blobs look like at rest: as they are, or encrypted.

forms    the two of them, as one interface
sealed   AES-GCM in chunks, under keys of the settings
copies   plain copies in anonymous memory, for processes that read files
"""
