"""The truth: labels that come later, joined with the answers they belong to, and how right each version is."""
