"""`python -m lit_sft merge A:0.5 B:0.5 --output FOLDER`: adds up LoRA adapters of the same base model."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_modules.errors import UserError
from lit_sft.files import read_json, replaced_folder, write_json, write_text
from lit_sft.settings.arguments import Arguments

if TYPE_CHECKING:
    from lit_sft.models.adapter_sums import Method, SavedAdapter

_METHODS = ("cat", "linear", "ties", "dare_linear", "dare_ties")

_USUAL_DENSITY = 0.5


def main(argv: list[str]) -> None:
    """Write the weighted sum of several adapters as one, or merge it into their base model.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If the adapters cannot be added up, or the folder to write to is not empty.
    """
    options = _parser().parse_args(argv[1:])
    folder = Path(options.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output {folder}: exists and is not an empty folder; name another.")
    density = _USUAL_DENSITY if options.density is None else options.density
    if options.density is not None and options.method in ("cat", "linear"):
        raise UserError(f"--density {density:g}: --method {options.method} keeps all values; leave one of the two out.")
    if not 0 < density < 1:
        raise UserError(f"--density {density:g}: expected a share of the values, above 0 and below 1.")
    sources = [_source(given) for given in options.adapters]
    if len(sources) < 2:
        raise UserError("merge: expected at least two adapters. To merge one into its base: `export RUN --merge`.")
    # imported after parsing, so that --help and errors are instant
    from transformers.utils.logging import disable_progress_bar

    from lit_sft.console import print_line

    disable_progress_bar()
    merge_adapters(sources, folder, method=options.method, density=density, into_base=options.into_base)
    first = sources[0][0]
    for other, _ in sources[1:]:
        if differing := _differing_prompts(first, other):
            print_line(f"note: {other} was trained with another {differing} than {first}, whose own is kept")
    for source, weight in sources:
        print_line(f"{weight:g} x {source}")
    print_line(f"{options.method} -> {folder}")


def merge_adapters(
    sources: Sequence[tuple[Path, float]],
    folder: Path,
    *,
    method: Method = "cat",
    density: float = _USUAL_DENSITY,
    into_base: bool = False,
) -> None:
    """Write the weighted sum of adapters; see `added_up` for the methods.

    Args:
        sources: Folders of adapters, with their weights.
        folder: The folder to write. Tokenizer, chat template and generation settings are those of the first adapter.
        method: How they are added up.
        density: Share of the values that `ties` and `dare` keep.
        into_base: Write the base model with the sum merged into it, instead of an adapter.

    Raises:
        UserError: If the adapters cannot be added up.
    """
    from lit_sft.models.adapter_sums import added_up, check_alike, read_adapter

    adapters = [read_adapter(source) for source, _ in sources]
    check_alike(adapters)
    factors = added_up(adapters, [weight for _, weight in sources], method, density)
    with tempfile.TemporaryDirectory() as made:
        place = Path(made) / "adapter" if into_base else folder
        _write_adapter(adapters[0], factors, place, _card(adapters[0], sources, method))
        if into_base:
            _write_model(place, folder)


def _differing_prompts(first: Path, other: Path) -> str:
    """What turns conversations into tokens and differs between two adapters; empty if nothing does."""
    templates = [(read_json(folder / "lit_sft.json") or {}).get("template") for folder in (first, other)]
    files = {"chat template": "chat_template.jinja", "tokenizer": "tokenizer.json"}
    contents = {
        what: [path.read_bytes() if (path := folder / name).is_file() else b"" for folder in (first, other)]
        for what, name in files.items()
    }
    differing = [what for what, (ours, theirs) in contents.items() if ours != theirs]
    if templates[0] != templates[1] and "chat template" not in differing:
        differing.insert(0, "chat template")
    return " and ".join(differing)


def _write_adapter(first: SavedAdapter, factors: dict[str, Any], folder: Path, card: str) -> None:
    from safetensors.torch import save_file

    from data_modules.digests import write_digests
    from lit_sft.models.adapters import WEIGHTS
    from lit_sft.models.saving import WRITTEN

    rank = len(next(iter(factors.values()))[0])
    settings = first.settings | {"r": rank, "lora_alpha": rank, "use_rslora": False, "init_lora_weights": True}
    tensors = {
        f"{n}.lora_{k}.weight": t.contiguous() for n, pair in factors.items() for k, t in zip("AB", pair, strict=True)
    }
    with replaced_folder(folder, is_written=lambda name: name in WRITTEN or ".safetensors" in name) as aside:
        _copy_others(first.folder, aside)
        save_file(tensors, aside / WEIGHTS, {"format": "pt"})
        write_json(aside / "adapter_config.json", settings)
        write_text(aside / "README.md", card)
        write_digests(aside)


def _write_model(adapter: Path, folder: Path) -> None:
    import torch

    from data_modules.digests import write_digests
    from lit_sft.models.saving import WRITTEN, merged
    from lit_sft.runs.opening import open_model

    model: Any = merged(open_model("adapter", str(adapter), device="cpu", dtype=torch.float32).backbone)
    with replaced_folder(folder, is_written=lambda name: name in WRITTEN or ".safetensors" in name) as aside:
        model.save_pretrained(aside)
        _copy_others(adapter, aside)
        settings = read_json(aside / "lit_sft.json") or {}
        write_json(aside / "lit_sft.json", {name: value for name, value in settings.items() if name != "base"})
        card = (adapter / "README.md").read_text(encoding="utf-8")
        write_text(aside / "README.md", card.replace("library_name: peft", "library_name: transformers"))
        write_digests(aside)


def _copy_others(source: Path, folder: Path) -> None:
    """Copy what belongs to a model besides its weights and their settings."""
    from data_modules.digests import DIGESTS
    from lit_sft.models.saving import WRITTEN

    for name in sorted(WRITTEN - {"config.json", "adapter_config.json", "README.md", DIGESTS}):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _card(first: SavedAdapter, sources: Sequence[tuple[Path, float]], method: str) -> str:
    """A model card without local paths."""
    from lit_sft.reporting.page import escaped_markdown

    base = str(first.settings.get("base_model_name_or_path") or "")
    name = escaped_markdown(Path(base).name if Path(base).exists() else base)
    rows = "\n".join(f"| {escaped_markdown(_name(source))} | {weight:g} |" for source, weight in sources)
    return (
        "---\nlibrary_name: peft\npipeline_tag: text-generation\ntags:\n- lit_sft\n- merge\n---\n\n"
        f"# Sum of {len(sources)} LoRA adapters\n\nLoRA adapters for {name}, added up with lit_sft ({method}).\n\n"
        f"| adapter | weight |\n| --- | --- |\n{rows}\n"
    )


def _name(folder: Path) -> str:
    """The name of an adapter; for one in a run folder, with the names of the run."""
    parts = folder.absolute().parts
    return "/".join(parts[-3:-1]) if parts[-1] == "model" and parts[-2].startswith("version_") else parts[-1]


def _source(given: str) -> tuple[Path, float]:
    """The folder and the weight in `FOLDER:WEIGHT`.

    Raises:
        UserError: If there is no adapter, or the weight is not a number.
    """
    name, _, number = given.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not name or not math.isfinite(weight) or not weight:
        raise UserError(f"{given}: expected an adapter and its weight, a number other than 0, such as runs/a:0.5.")
    for folder in (Path(name), Path(name) / "model"):
        if (folder / "adapter_config.json").is_file():
            return folder, weight
    raise UserError(
        f"{name}: no adapter (adapter_config.json) in this folder or its model/; name a LoRA run or the folder of an "
        "exported adapter."
    )


def _parser() -> Arguments:
    parser = Arguments("merge", __doc__, example="runs/a/version_0:0.5 runs/b/version_0:0.5 --output sum")
    parser.add_argument(
        "adapters", nargs="+", metavar="ADAPTER:WEIGHT", help="LoRA run or folder of an adapter, and its weight"
    )
    parser.add_argument("--output", required=True, help="output folder")
    parser.add_argument(
        "--method",
        choices=_METHODS,
        default="cat",
        help="cat: exactly the weighted sum, whose rank is the sum of all ranks. linear, ties, dare_linear, dare_ties: "
        "as in peft, add up both factors apart, which is an approximation of the same rank. Default: cat",
    )
    parser.add_argument(
        "--density", type=float, help="share of the values that ties and dare keep, below 1; default: 0.5"
    )
    parser.add_argument("--into_base", action="store_true", help="write the whole model instead of an adapter")
    return parser
