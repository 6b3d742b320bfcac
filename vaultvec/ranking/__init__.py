"""The halves of a search and how one score is made of them. `search.py` puts them together."""
