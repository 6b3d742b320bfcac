"""The usual Python way to index a vault, as the tutorials have it: LangChain's loader, splitter, embeddings and Chroma.

    python benchmarks/langchain_way.py VAULT FOLDER WEIGHTS

`collect_metadata=True`, the loader's default, crashes on real vaults (a tag that is null), so it is off.
"""

from __future__ import annotations

import json
import sys
import time


def main(vault: str, folder: str, weights: str) -> dict[str, float]:
    """Index `vault` into `folder` with the model in `weights`; returns counts and seconds of each step."""
    marks = [time.perf_counter()]
    from langchain_chroma import Chroma
    from langchain_community.document_loaders import ObsidianLoader
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    marks.append(time.perf_counter())
    documents = ObsidianLoader(vault, collect_metadata=False).load()
    chunks = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=100).split_documents(documents)
    marks.append(time.perf_counter())
    embeddings = HuggingFaceEmbeddings(model_name=weights)
    marks.append(time.perf_counter())
    store = Chroma.from_documents(chunks, embeddings, persist_directory=folder, collection_name="notes")
    marks.append(time.perf_counter())
    steps = ("import", "read_and_split", "load_model", "embed_and_store")
    seconds = {name: round(after - before, 2) for name, before, after in zip(steps, marks, marks[1:], strict=False)}
    return {"notes": len(documents), "chunks": len(chunks), "rows": store._collection.count(), **seconds}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4])))
