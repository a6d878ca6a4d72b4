"""Signatures on manifests, by model-signing and an elliptic curve key of the author's.

signing_client   the process: model-signing, nothing of the gateway
signatures       making and checking them, and who counts as an author
"""
