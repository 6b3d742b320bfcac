"""Every error a user can mend. The scripts print one as a single line and exit with its code.

VaultvecError
├── SettingsError        config.py: a key, a type, a range, a line that does not parse
├── VaultError           the vault is missing, empty, unreadable, or vanished while it was read
├── ModelError           weights or tokenizer cannot be had, or do not match what was asked for
├── EngineError          the engine failed on a batch, or returned vectors that cannot be right
│   └── BatchTooLarge   the batch did not fit; smaller ones may
├── LedgerError          the index on disk is from another version, or cannot be read or written
│   ├── LedgerDamaged    its file is not what SQLite or this program wrote
│   └── StoreDamaged     Chroma's folder is not what Chroma wrote
├── LockedError          another process is writing this index
└── QueryError           a query, filter or note name that cannot be answered
"""


class VaultvecError(Exception):
    """One line: what was found, what was expected, what to run or change."""

    exit_code = 1


class SettingsError(VaultvecError):
    """config.py or a command-line setting is wrong."""


class VaultError(VaultvecError):
    """The vault cannot be read."""


class ModelError(VaultvecError):
    """The model's weights or tokenizer cannot be had."""


class EngineError(VaultvecError):
    """The engine failed, or its vectors have the wrong shape or are not finite."""


class BatchTooLarge(EngineError):
    """A batch did not fit into memory; `Engine.embed_batches` halves it and goes on."""


class LedgerError(VaultvecError):
    """The index on disk is damaged, too new, or cannot be written."""


class LedgerDamaged(LedgerError):
    """The index file is damaged; `rebuild` puts it aside."""


class StoreDamaged(LedgerError):
    """Chroma's folder is damaged; it is made anew from the ledger."""


class LockedError(VaultvecError):
    """Another process owns the index."""


class QueryError(VaultvecError):
    """The query or a filter cannot be answered."""
