"""Immutable versions: files by digest, a manifest whose digest is the version, and names that point at them.

registration   from a source and its options to a stored manifest
  sources        which files, and which of them is loaded first
  attachments    signature, example, golden cases, lineage, evaluation, as people write them
  trial          the signature found, and the version tried, by an inspection in a process of its own
manifest       the record of a version, made of parts; canonical JSON names it
blobs          every byte, stored once under its digest
catalogue      numbers, aliases, tags: a model's document, pure
loading        from a manifest to what serving needs
verify, collect, BlobStore.copy_to    proof, gc, backup
lineage        where versions come from: recorded (``record``), typed, compared, trained again

``record`` is what a training script imports; it brings the standard library and nothing of the servers.
"""

from gateway.registry.lineage.recorder import record

__all__ = ["record"]
