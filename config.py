"""Settings. Flat values only: the programs read this file without running it, config_optimizer.py rewrites it.

The guide's six keys stand at its "before" values; the engine and the precision are "auto", so it is fast as it comes.
Run `python config_optimizer.py` to see, for this machine and these notes, what another value would bring.
"""

# ── vault ────────────────────────────────────────────────────────────────────────────────────────────────────────────
# Folder of the Obsidian vault. "" = ask, or use --vault or the environment variable VAULTVEC_VAULT. It is only read.
# A relative folder, here and in DATA_DIR, is taken from where this file lies.
VAULT_PATH = ""
# Where indexes, converted models and reports are kept. "" = the user's data folder. VAULTVEC_DATA overrides it.
DATA_DIR = ""
# Notes to leave out, as .gitignore patterns relative to the vault, e.g. ["Templates/", "*.excalidraw.md"].
# Always left out: .obsidian, .trash, every dot folder, node_modules, and Obsidian's own "Excluded files".
EXCLUDE = []

# ── model ────────────────────────────────────────────────────────────────────────────────────────────────────────────
# "auto" looks at the vault's languages: English → all-MiniLM-L6-v2, others → a multilingual model, mixed → both.
# "mixed" = both, whatever the notes are in: English notes can then be asked in Korean, too.
# Or a name from `python main.py models`, any sentence-transformers name, or a folder; a relative one is looked for beside
# this file.
EMBEDDING_MODEL = "auto"
# "auto" (CUDA or MPS → torch, else OpenVINO), "openvino", "torch", "ollama", or "openai" (any /v1/embeddings server).
ENGINE = "auto"
# "auto" = bf16 or fp16 where the hardware has it and the vectors stay the same (lowest cosine ≥ 0.999), else fp32.
# Or "fp32", "bf16", "fp16", or "int8" (faster on CPUs with VNNI; changes about one result in twenty).
PRECISION = "auto"
# Addresses used only by ENGINE = "ollama" and ENGINE = "openai". The key of the latter comes from OPENAI_API_KEY alone.
OLLAMA_URL = "http://127.0.0.1:11434"
OPENAI_URL = "http://127.0.0.1:8080/v1"

# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────────
# Texts gathered and sorted by token length at a time (1 to 100000; at least 64 batches' worth, 512 on a CPU). More = less padding.
EMBEDDING_BATCH_SIZE = 32
# Vectors written to Chroma at a time (1 to 100000; Chroma takes at most 5461, more is split).
BATCH_SIZE = 64
# Padded tokens that go through the model at once: 256 to 1048576, or "auto" (2048 on a CPU, by free memory on a GPU).
MAX_TOKENS_PER_BATCH = "auto"
# Batches in flight on a CPU, or requests to a server: 1 to 64, or "auto" (CPU: one for each two cores, at least two;
# ollama: 2; openai: as many, up to 8, as make the first requests faster).
STREAMS = "auto"
# CPU threads of the model: 1 to 1024, or "auto" (all cores this process may use).
THREADS = "auto"
# Processes that read and tokenise notes: 0 = in this process, 1 to 64, or "auto" (half the cores, for large vaults).
WORKERS = "auto"
# Share of the GPU's memory that may be used (0.1 to 1.0).
GPU_MEMORY_FRACTION = 0.7
# Seconds between two looks at memory (0.1 to 3600). They never stop the work; the per-file baseline's do.
MEMORY_CHECK_INTERVAL = 2
# torch engine: False = packed tokens without padding, asynchronous copies; True = plain padded batches.
DISABLE_COMPLEX_GPU_OPTIMIZATION = False
# False = recompute some vectors after a run, compare Chroma with the ledger, tidy memory on the way. True = do not.
FAST_MODE = False
# torch engine: compile the model with torch.compile. Slow at first; pays on long runs only.
TORCH_COMPILE = False

# ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────────────
# Tokens a chunk aims at (32 to 8192), title and heading included; never more than the model's own limit.
CHUNK_TOKENS = 200
# Neighbouring sections below this many tokens are merged (0 to 4096).
MIN_CHUNK_TOKENS = 64

# ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────────
# "auto" = exact search up to 200,000 chunks, Chroma's HNSW above; or "exact", "chroma".
SEARCH_BACKEND = "auto"
