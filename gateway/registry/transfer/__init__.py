"""Versions from one artifact store to another, by reference: what the other has already is not sent.

records    what a store at a URL says of a version: where it stood in the catalogue that it came from
ends       the two ends of a transfer: a home's blobs, an object store
transfer   which files, in parallel, one after the other version whole
"""
