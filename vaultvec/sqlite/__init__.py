"""The ledger's parts: its file, its tables, its queues, vectors from other ledgers."""
