"""Desired state: documents in a store, changed by compare-and-set, reconciled to what runs here."""
