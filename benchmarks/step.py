"""What a training step costs, beside the published loops, in one run on one machine.

    python benchmarks/step.py run                                              # the CPU rows, about five minutes
    python benchmarks/step.py run --device cuda --batch-size 256 --attack-steps 10 --precision bf16 --rounds 10
    python benchmarks/step.py run --device cuda --model ViT-L/14 --batch-size 128 --attack-steps 10 --precision bf16
    python benchmarks/step.py table                                            # step.md from step.json

On a machine that has other work to do, one thread and `--clock cpu` (OMP_NUM_THREADS=1) still give true ratios.

Random weights in CLIP's own geometry, the 1000 ImageNet classes under the shipped trees, random images in memory.
Every round makes one step of each contender, one after the other; ratios are taken within a round. `--published-every
N` runs the published TeCoA loop, the slowest, in every N-th round. It encodes all 1000 prompts where the batch has 256
images, and proportionally fewer in smaller batches, so that texts and images cost what they do at 256."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from provenance import machine
from published_loops import Ascent, Batch, fare, tecoa
from step_memory import extra_bytes
from step_page import PUBLISHED_FARE, PUBLISHED_TECOA, TEXTS_ONCE, write_page
from torch import Tensor, nn

from robustree.attacks import PGD, Threat
from robustree.data.catalog import CATALOG
from robustree.geometry import Poincare, Space, Sphere
from robustree.methods import FARE, Adversarial, Context, Hierarchical, Method, TeCoA
from robustree.models.clip_tokenizer import clip_tokenizer
from robustree.models.encoder import CLIP_MEAN, CLIP_STD, Preprocessing, VisionLanguageModel
from robustree.models.huggingface import adapt
from robustree.reproducing.counting import KNOWN
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.training import Recipe, training_step
from robustree.training.acceleration import accelerated
from robustree.training.cost import counted, matmul_peak, timed
from robustree.training.loop import Frozen, adamw, select_trained
from robustree.tree_model import TEMPLATE, Scores, TreeModel, cosine_head, fill, matched_head
from robustree.writing import write_whole

HERE = Path(__file__).parent
RESULT = HERE / "step.json"
EPS = 4 / 255
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Setting:
    """One run of this script."""

    model: str
    batch_size: int
    attack_steps: int
    rounds: int
    published_every: int
    device: torch.device
    precision: str
    compile: bool
    activation_checkpointing: bool
    clock: str

    @property
    def name(self) -> str:
        options = [name.replace("_", " ") for name in ("compile", "activation_checkpointing") if getattr(self, name)]
        return ", ".join([self.model, f"batch {self.batch_size}", self.device.type, self.precision, *options])


class World:
    """The models and the batch that all contenders share, and the contenders: name -> one step."""

    def __init__(self, setting: Setting):
        from transformers import CLIPConfig, CLIPModel

        torch.manual_seed(0)
        self.setting = setting
        self.tokenizer = clip_tokenizer()
        self.clip = CLIPModel(CLIPConfig(**KNOWN[setting.model])).eval().to(setting.device)
        self.model: VisionLanguageModel = adapt(
            self.clip,
            self.tokenizer,
            preprocessing=Preprocessing(resolution=224, mean=CLIP_MEAN, std=CLIP_STD),
            name=setting.model,
        )
        self.forest = CATALOG["imagenet"].forest()
        self.batch = Batch(
            images=torch.rand(setting.batch_size, 3, 224, 224).to(setting.device),
            leaves=torch.randint(0, self.forest.leaf_count, (setting.batch_size,)).to(setting.device),
        )
        self.optimisers: list[Any] = []

    def tree_model(self, forest: Forest, space: Space) -> TreeModel:
        """The shared image encoder over a forest; random text features, because no cost depends on their values."""
        width = self.model.text_projection.in_features
        features = torch.randn(len(forest.names), width).to(self.setting.device)
        head = cosine_head(self.model) if isinstance(space, Sphere) else matched_head(space, self.model, cosine=0.2)
        projection = nn.Linear(width, self.model.text_projection.out_features, bias=False).to(self.setting.device)
        model = TreeModel(self.model.image_encoder, projection, features, forest, head, image_norm=10.0)
        model.precision = self.setting.precision  # type: ignore[assignment]
        return model

    def ours(self, method: Method, space: Space, forest: Forest) -> Callable[[], None]:
        """One step of this library, as its loop makes it."""
        attack = PGD(steps=self.setting.attack_steps, step_size=0.5, best=False)
        recipe = Recipe(method=method, space=space, threat=Threat(eps=EPS), attack=attack)
        raw, generator = self.tree_model(forest, space), torch.Generator().manual_seed(0)
        select_trained(raw, text=method.trains_text)
        frozen = Frozen(raw) if isinstance(method, FARE) else raw
        optimiser = adamw(raw, recipe)
        trained = [p for p in raw.parameters() if p.requires_grad]

        def step() -> None:
            optimiser.zero_grad()
            loss, _ = training_step(
                raw, raw, frozen, method, attack, recipe.threat, self.batch.images, self.batch.leaves, generator
            )
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            torch.stack([loss.detach().double(), norm.double()]).tolist()
            optimiser.step()

        return step

    def images_of(self, clip: Any, images: Tensor) -> Tensor:
        """CLIP's image embeddings as the published loops compute them."""
        mean, std = self.model.image_encoder.mean, self.model.image_encoder.std
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.setting.precision == "bf16"):
            points = clip.visual_projection(clip.vision_model(pixel_values=(images - mean) / std).pooler_output)
        return points.float()

    def contenders(self) -> dict[str, Callable[[], None]]:
        flat, one = self.forest.select(()), self.forest.select(("wordnet",))
        prompts = fill(TEMPLATE, self.forest.leaves)
        again = min(len(prompts), round(len(prompts) * self.setting.batch_size / 256))
        embeddings = F.normalize(torch.randn(len(prompts), self.model.text_projection.out_features))
        embeddings = embeddings.to(self.setting.device)
        ascent = Ascent(eps=EPS, step_size=EPS / 2, steps=self.setting.attack_steps)
        published = (self.clip, self.images_of, self.tokenizer)
        return {
            "TeCoA": self.ours(TeCoA(), Sphere(), flat),
            "HRFT, one tree": self.ours(Hierarchical(), Poincare(), one),
            "HRFT, five trees": self.ours(Hierarchical(), Poincare(), self.forest),
            "FARE": self.ours(FARE(), Sphere(), flat),
            PUBLISHED_FARE: fare(self.clip, self.images_of, self.batch, ascent, embeddings),
            TEXTS_ONCE: tecoa(*published, [], embeddings, self.batch, ascent),
            PUBLISHED_TECOA: tecoa(*published, prompts[:again], embeddings[again:], self.batch, ascent),
        }

    def parts(self) -> dict[str, Callable[[], None]]:
        """The bare encoder, in the weights' and in the pixels' gradient, and nothing around it."""
        encoder = self.model.image_encoder

        def encoded(images: Tensor) -> Tensor:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.setting.precision == "bf16"):
                return encoder(images).float().square().sum()

        def weights() -> None:
            encoder.requires_grad_(True)
            encoded(self.batch.images).backward()
            encoder.zero_grad()

        def pixels() -> None:
            encoder.requires_grad_(False)
            moved = self.batch.images.clone().requires_grad_(True)
            torch.autograd.grad(encoded(moved), moved)
            encoder.requires_grad_(True)

        return {"encoder, forward and backward": weights, "encoder, gradient of pixels": pixels}


def two_thousand_nodes() -> Forest:
    """1000 leaves under five trees of 160, 32 and 8 nodes."""
    leaves = [f"leaf {number}" for number in range(1000)]

    def tree(name: str, shift: int) -> TreeSource:
        own = leaves[shift:] + leaves[:shift]
        groups = [own[1000 * k // 160 : 1000 * (k + 1) // 160] for k in range(160)]
        middle = [{f"{name} low {5 * k + j}": groups[5 * k + j] for j in range(5)} for k in range(32)]
        return TreeSource(
            name,
            {f"{name} top {k}": {f"{name} mid {4 * k + j}": middle[4 * k + j] for j in range(4)} for k in range(8)},
        )

    return build_forest(leaves, [tree(f"tree{number}", 37 * number) for number in range(5)])


def hierarchical_part(setting: Setting, *, dimensions: int = 512, batch_size: int = 256) -> dict[str, Any]:
    """Seconds of all that HRFT adds to the encoder in one step of 256 images and 2000 nodes: distances, the objective
    of every attack step with its gradient, and the loss with its own, HypAvg included."""
    forest = two_thousand_nodes()
    draw = torch.Generator().manual_seed(0)
    points = (torch.randn(batch_size, dimensions, generator=draw) / dimensions**0.5).to(setting.device)
    texts = (0.6 * torch.randn(len(forest.names), dimensions, generator=draw) / dimensions**0.5).to(setting.device)
    points.requires_grad_(True), texts.requires_grad_(True)
    leaves = torch.randint(0, forest.leaf_count, (batch_size,), generator=draw).to(setting.device)
    method, head = Hierarchical(parents="both"), matched_head(Poincare(), _Scale(), cosine=0.2)  # type: ignore[arg-type]
    context = Context(points, leaves, forest, head, _unused, _unused)
    (objective,) = method.inner(context)

    def part() -> None:
        for _ in range(setting.attack_steps):
            torch.autograd.grad(objective(scores()).sum(), [points, texts])
        loss, _ = method.loss(context, [Adversarial(points, scores())])
        torch.autograd.grad(loss, [points, texts])

    def scores() -> Scores:
        return Scores(points, texts, -head.scale * head.space.pairwise_distance(points, texts))

    part()
    seconds = [timed(part, setting.device, CLOCKS[setting.clock]) for _ in range(5)]
    return {"nodes": len(forest.names), "batch_size": batch_size, "dimensions": dimensions, "seconds": seconds}


class _Scale:
    logit_scale = 100.0


def _unused(images: Tensor) -> Scores:
    raise AssertionError("no encoder is called in this part")


def measure(setting: Setting) -> dict[str, Any]:
    """All rounds of one setting."""
    device, world = setting.device, World(setting)
    work = {**world.parts(), **world.contenders()}
    rows: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in work}
    peaks, clock = [], CLOCKS[setting.clock]
    with accelerated(
        world.model.image_encoder, compiled=setting.compile, activation_checkpointing=setting.activation_checkpointing
    ):
        for name, step in work.items():
            step()  # warms up: what it makes once and keeps is none of a step's memory
            with counted() as operations:
                rows[name]["bytes"] = extra_bytes(step, device)
            rows[name]["operations"] = operations.total
            if setting.compile:
                step()  # nothing is compiled while operations are counted
        for number in range(setting.rounds):
            peaks.append(matmul_peak(device, setting.precision, clock))
            for name, step in work.items():
                if name != PUBLISHED_TECOA or number % setting.published_every == 0:
                    rows[name]["seconds"].append(timed(step, device, clock))
            print(f"round {number + 1} of {setting.rounds}", flush=True)
    return {
        "setting": {name: str(value) for name, value in vars(setting).items()},
        "machine": machine(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "matmul_peak": peaks,
        "rows": rows,
        "hierarchical_part": hierarchical_part(setting),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["run", "table"])
    parser.add_argument("--model", choices=list(KNOWN), default="ViT-B/32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--attack-steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--published-every", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: of this process, for a machine with other work"
    )
    options = vars(parser.parse_args())
    if options.pop("job") == "run":
        setting = Setting(**options)
        found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        found[setting.name] = measure(setting)
        write_whole(RESULT, json.dumps(found, indent=1) + "\n")
    write_page(json.loads(RESULT.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
