"""The stages of a run, side by side: read → embed → save. `pipeline.py` puts them together."""
