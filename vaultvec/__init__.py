"""vault → notes → chunks → vectors → ledger and Chroma → search. The scripts beside this package are its front."""

__version__ = "1.0.0"
