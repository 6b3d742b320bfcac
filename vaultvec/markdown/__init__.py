"""Markdown → plain text: what `notes.py` is made of."""
