"""Measurements: side by side with other ways, at scale, of single settings. The program itself needs none of it."""
