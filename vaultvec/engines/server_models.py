"""What neither a server nor many a folder says of a model: the prefixes it was trained with; rows of data, not code.

Sources: each model's card, under "usage" or "prompts".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vaultvec.models import ModelSpec


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Family of models by the start of its name, and what stands before a query and before a document."""

    family: str
    query: str
    document: str
    exact: bool = False  # the whole name, not its start


_REPRESENT = "Represent this sentence for searching relevant passages: "
_INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

PREFIXES: tuple[Prefixes, ...] = (
    Prefixes("nomic-embed-text", "search_query: ", "search_document: "),
    Prefixes("mxbai-embed", _REPRESENT, ""),
    Prefixes("bge-large-en", _REPRESENT, ""),
    Prefixes("bge-base-en", _REPRESENT, ""),
    Prefixes("bge-small-en", _REPRESENT, ""),
    Prefixes("bge-large", _REPRESENT, "", exact=True),  # Ollama's bge-large-en; bge-large-zh is told in Chinese
    Prefixes("snowflake-arctic-embed", _REPRESENT, ""),
    Prefixes("snowflake-arctic-embed2", "query: ", ""),
    Prefixes("snowflake-arctic-embed-m-v2.0", "query: ", ""),
    Prefixes("snowflake-arctic-embed-l-v2.0", "query: ", ""),
    Prefixes("e5-small", "query: ", "passage: "),
    Prefixes("e5-base", "query: ", "passage: "),
    Prefixes("e5-large", "query: ", "passage: "),
    Prefixes("multilingual-e5", "query: ", "passage: "),
    Prefixes("multilingual-e5-large-instruct", _INSTRUCT + " ", ""),
    Prefixes("e5-mistral-7b-instruct", _INSTRUCT + " ", ""),
    Prefixes("qwen3-embedding", _INSTRUCT, ""),
    Prefixes("embeddinggemma", "task: search result | query: ", "title: none | text: "),
)

# What Ollama's library calls the models that the catalogue names as their authors do.
OLLAMA_NAMES = {
    "sentence-transformers/all-minilm-l6-v2": "all-minilm",
    "sentence-transformers/all-minilm-l12-v2": "all-minilm:33m",
    "sentence-transformers/paraphrase-multilingual-minilm-l12-v2": "paraphrase-multilingual",
    "baai/bge-m3": "bge-m3",
}


def base_name(name: str) -> str:
    """`nomic-ai/Nomic-Embed-Text:v1.5` → `nomic-embed-text`: no organisation, no tag, lower case."""
    tail = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].split(":", 1)[0].lower()
    return tail.removeprefix("text-embedding-")  # LM Studio puts it before every embedding model's name


def with_prefixes(model: ModelSpec) -> ModelSpec:
    """The model with its family's prefixes, the longest family name winning; unchanged for an unknown family."""
    base = base_name(model.name)
    rows = [row for row in PREFIXES if base == row.family or (base.startswith(row.family + "-") and not row.exact)]
    if not rows:
        return model
    row = max(rows, key=lambda row: len(row.family))
    return replace(model, query_prefix=row.query, document_prefix=row.document)
