"""The model card of a hardened checkpoint: README.md, with the figures of an audit as the hub's `model-index`.

Everything on it comes from `robustree.json`, so a card can be written again at any time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustree.models.hub import is_repository
from robustree.taxonomy import Forest, draw_tree

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
_METHODS = {
    "TeCoA": "TeCoA: cross-entropy of adversarial images (Mao et al., ICLR 2023)",
    "FARE": "FARE: adversarial embeddings stay where the clean ones were (Schlarmann et al., ICML 2024)",
    "PMGAFT": "PMG-AFT: TeCoA, guided by the pretrained model (Wang et al., CVPR 2024)",
    "AGFT": "AGFT: adversarial images keep the soft labels of the pretrained model (CVPR 2026)",
    "Hierarchical": "Hierarchically robust fine-tuning: every level of the trees (arXiv 2604.18867, CVPR 2026)",
}
_TASK = "zero-shot-image-classification"


def write_card(directory: Path, forest: Forest, content: Mapping[str, Any]) -> None:
    """Write README.md and one drawing a tree into `directory`; `content` is what `robustree.json` holds.

    After an audit the drawings are coloured by robust accuracy.
    """
    figures = content.get("figures")
    colours = {int(node): value for node, value in figures["nodes"].items()} if figures else {}
    for tree in forest.trees:
        nodes = {*range(forest.leaf_count)}.union(*tree.levels)
        drawing = draw_tree(forest, tree.name, colour={node: v for node, v in colours.items() if node in nodes})
        (directory / _drawing(tree.name)).write_text(drawing, encoding="utf-8")
    (directory / CARD).write_text(_card(forest, content), encoding="utf-8")


def _drawing(tree: str) -> str:
    return f"tree-{tree}.svg"


def _card(forest: Forest, content: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    template = files("robustree").joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    record, space = content["record"], dict(content["head"]["space"])
    kind = _kind(content)
    named = space.pop("name")
    sizes = {tree.name: [len(cut.nodes) for cut in forest.cuts() if cut.tree == tree.name] for tree in forest.trees}
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        content={"licence": None, **content},
        metadata=_metadata(content),
        title=_title(content),
        data=Path(record["data"]).name if "data" in record else None,
        figures=content.get("figures"),
        transformers=_opens_in_transformers(content),
        leaf_count=forest.leaf_count,
        trees=[{"name": name, "sizes": levels, "drawing": _drawing(name)} for name, levels in sizes.items()],
        method=_METHODS.get(kind, kind),
        space=", ".join([named, *(f"{name} {value:g}" for name, value in space.items())]),
        options=list(_flat(record.get("recipe", {}))),
        percent=lambda value: f"{100 * value:.1f}",
        threat=_threat,
    )


def _metadata(content: Mapping[str, Any]) -> str:
    """The YAML between the card's first lines."""
    from huggingface_hub import ModelCardData

    base, licence, figures = content["record"].get("model", ""), content.get("licence"), content.get("figures")
    naming = {} if licence else {"license_name": "see-below"}
    results = list(_results(figures)) if figures else None
    return ModelCardData(
        license=licence or "other",
        library_name="transformers" if _opens_in_transformers(content) else None,
        pipeline_tag=_TASK,
        tags=[
            "robustree",
            *(["clip"] if _opens_in_transformers(content) else []),
            "adversarial-robustness",
            "hierarchical-classification",
        ],
        base_model=base if is_repository(base) else None,
        model_name=_title(content) if results else None,
        eval_results=results,
        **naming,  # type: ignore[arg-type]
    ).to_yaml()


def _results(figures: Mapping[str, Any]) -> Iterator[EvalResult]:
    """Clean and robust accuracy of every level as entries of a `model-index`."""
    from huggingface_hub import EvalResult

    attacks = f", {', '.join(figures['attacks'])}, {_threat(figures['threat'])}"
    for level in figures["levels"]:
        for kind, under in (("clean", ""), ("robust", attacks)):
            yield EvalResult(
                task_type=_TASK,
                dataset_type=figures["data"],
                dataset_name=f"{figures['data']}, {figures['images']} images, {level['level']}",
                dataset_config=level["level"],
                metric_type="accuracy",
                metric_name=f"{kind} accuracy in %{under}",
                metric_value=round(100 * level[kind]["value"], 2),
            )


def _kind(content: Mapping[str, Any]) -> str:
    """The name of the method that the record tells."""
    return content["record"].get("recipe", {}).get("method", {}).get("kind", "robustree")


def _opens_in_transformers(content: Mapping[str, Any]) -> bool:
    """Whether the weights lie in transformers' layout; checkpoints from before files were listed do."""
    return "config.json" in content.get("files", ("config.json",))


def _title(content: Mapping[str, Any]) -> str:
    base = content["record"].get("model", "CLIP")
    local = Path(base).is_absolute() or Path(base).exists()
    return f"{Path(base).name if local else base} hardened with {_kind(content)}"


def _threat(threat: Mapping[str, Any]) -> str:
    eps = f"{255 * threat['eps']:g}/255" if threat["norm"] == "linf" else f"{threat['eps']:g}"
    return f"{threat['norm']}, eps {eps} of pixels in [0, 1]"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested records by their paths: ("threat.eps", 0.0157)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
