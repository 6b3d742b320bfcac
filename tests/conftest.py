"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the top-level scripts
os.environ["HF_HUB_OFFLINE"] = "1"  # no test goes over the network, not even to be told that a model is unknown

from tiny_model import write_tiny_bert


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are prepared; shared, so that each is prepared once a run."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: BERT of 2 layers, dim 32, 40 tokens, random weights."""
    return write_tiny_bert(tmp_path_factory.mktemp("hub") / "tiny-bert")
