"""Tests of artifact stores elsewhere, and of what lies in them sealed, signed and counted."""
