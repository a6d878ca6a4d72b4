"""Artifacts in an object store: the client in a process of its own, and the blobs and records that are kept there.

object_client   the process: standard library and fsspec, nothing of the gateway
objects         the gateway's end of it: calls, progress, time limits, errors in words
remote_blobs    blobs by digest in an object store, read back after each upload
cached          BlobStore over it, with a bounded local cache
"""
