"""data_modules imports nothing in-house, lit_sft never imports callbacks, and nobody imports callbacks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "data_modules": {"data_modules"},
    "lit_sft": {"lit_sft", "data_modules"},
    "callbacks": {"callbacks", "lit_sft", "data_modules"},
}
# the way the data goes: a stage imports only earlier ones
STAGES = [
    "conversation", "data_files", "digests", "model_names", "packing", "progress", "reasons", "record", "rejections",
    "segments", "unknown_text", "worker_sockets", "counts", "encoded_cache", "formats", "masking", "parquet_files",
    "sampling", "templates", "text_lines", "tokenizers", "truncation", "csv_files", "example", "json_files", "ledger",
    "batch", "encoding", "example_store", "readers", "loaders", "splits", "encoding_pool", "encoded_data",
    "sft_data_module",
]  # fmt: skip


def imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


FILES = [file for package in ALLOWED for file in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_file_imports_only_its_own_layer_and_lower_ones(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    house = {name.partition(".")[0] for name in imports(file)} & ALLOWED.keys()
    assert house <= ALLOWED[package]


def test_stages_of_the_data_import_only_earlier_stages() -> None:
    modules = {file.stem for file in (ROOT / "data_modules").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)
    for position, stage in enumerate(STAGES):
        used = {
            n.partition(".")[2] for n in imports(ROOT / "data_modules" / f"{stage}.py") if n.startswith("data_modules.")
        }
        assert used <= set(STAGES[:position]), stage
