"""`main.py models`: the catalogue, whether the weights are here, and what was measured on this machine."""

from __future__ import annotations

import json
from typing import Any

from vaultvec.config_keys import SERVERS
from vaultvec.models import CATALOGUE, MULTILINGUAL, ModelSpec, bundled_folder
from vaultvec.settings import Settings


def list_models(settings: Settings) -> list[dict[str, Any]]:
    """A row a model: name, languages, dim, max_tokens, size_mb, here, texts_per_second, measured_with, agreement, remark."""
    measured = _measured(settings)
    return [_row(spec, settings, measured.get(spec.name, {})) for spec in CATALOGUE]


def _row(spec: ModelSpec, settings: Settings, measured: dict[str, Any]) -> dict[str, Any]:
    languages = "many" if MULTILINGUAL in spec.languages else " ".join(spec.languages)  # the remark says how many
    return {
        "name": spec.name,
        "languages": languages,
        "dim": spec.dim,
        "max_tokens": spec.max_tokens,
        "size_mb": spec.size_mb,
        "here": _here(spec, settings),
        "texts_per_second": measured.get("texts_per_second"),
        "measured_with": measured.get("measured_with", ""),
        "agreement": measured.get("agreement"),
        "remark": spec.remark,
    }


def _here(spec: ModelSpec, settings: Settings) -> str:
    """Where the weights are: "prepared" (converted, ready), "installed" (with a package), "" (to be downloaded)."""
    if any(settings.models_dir.glob(f"{spec.slug}-*/prepared.json")):
        return "prepared"
    if spec.package and bundled_folder(spec):
        return "installed"
    return ""


def _measured(settings: Settings) -> dict[str, dict[str, Any]]:
    """Speed, what it was measured with, and top-10 agreement with all-MiniLM-L6-v2, of each model from the newest benchmark
    that measured it.

    Every benchmark measures the model in use, a thorough one the guide's models too.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(settings.reports_dir.glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            used = {row["key"]: row["texts_per_second"] for row in report.get("rows", [])}.get("present")
            if used and report["engine"] not in SERVERS:  # a server's speed is not this program's
                name, made_by = report["model"], f"{report['engine']} {report['precision']} {report['device']}"
                found[name] = {**found.get(name, {}), "texts_per_second": used, "measured_with": made_by}
            found.update({row["name"]: row for row in report.get("models", [])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a broken report is no report
    return found
