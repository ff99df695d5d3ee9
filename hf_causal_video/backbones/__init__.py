"""Ordinary networks under every method: transformer layers and the text encoder."""
