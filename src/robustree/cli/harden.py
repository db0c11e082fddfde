"""`robustree harden METHOD`: from a pretrained model to a robust checkpoint."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from rich.console import Console

from robustree.attacks import PGD
from robustree.checkpoint import MARKER
from robustree.cli.cost import Pace, cost_line
from robustree.cli.endings import Ended, keeping, orderly_stop, sentence
from robustree.cli.loading import choose_device, forest_of_trees, open_model
from robustree.cli.options import Device, ThreatOptions
from robustree.cli.parsing import parse
from robustree.cli.progress import Bar
from robustree.data import DataSet, data_over, streamed
from robustree.geometry import Euclidean, Poincare, Space, Sphere
from robustree.methods import AGFT, FARE, PMGAFT, Hierarchical, TeCoA
from robustree.models import VisionLanguageModel
from robustree.processes import LostProcessError, process_number
from robustree.taxonomy import Forest
from robustree.training import ChangedCourseWarning, Progress, Recipe, Runtime, StoppedError, harden, recipe_record
from robustree.training.curves import Curves
from robustree.training.tensorboard import TensorBoard
from robustree.training.wandb import WandB
from robustree.tree_model import TEMPLATE, Depths, Precision, TreeModel

Method = TypeVar("Method", TeCoA, FARE, PMGAFT, AGFT, Hierarchical)


@dataclass(frozen=True, kw_only=True)
class TrainingAttack:
    """The attack inside each training step."""

    steps: int = 3
    """Gradient steps."""
    step_size: float = 0.5
    """Size of a step, in units of eps."""


@dataclass(frozen=True, kw_only=True)
class Options(Generic[Method]):
    """One hardening run."""

    method: tyro.conf.OmitArgPrefixes[Method]
    model: str = "nano"
    """The model to harden: nano, a hub id, or a directory."""
    data: str = "emoji"
    """The images: emoji, a folder with one sub-folder a class, parquet, tar or CSV files, or name=PATH for a set of
    robustree data list."""
    trees: tuple[str, ...] = ()
    """Label trees: shipped ones of the data set by name (see tree list) or files; all shipped ones if left out."""
    output: Path
    """The directory that becomes the checkpoint; an interrupted run goes on from there."""
    threat: ThreatOptions = field(default_factory=ThreatOptions)
    attack: TrainingAttack = field(default_factory=TrainingAttack)
    steps: int = Recipe.steps
    """Optimiser steps."""
    batch_size: int = Recipe.batch_size
    """Images a step."""
    micro_batches: int = Recipe.micro_batches
    """Parts in which a batch is computed, to save memory."""
    window: int | None = None
    """Read tar or parquet shards in order, drawing from this many images at a time, for data of any size; left out,
    every epoch is a permutation of all images."""
    index: Path | None = None
    """With --window: the folder for the index of the shards; beside them, in .robustree, if left out."""
    lr: float = Recipe.lr
    """Peak learning rate."""
    text_lr: float = Recipe.text_lr
    """The text projection's rate, as a fraction of lr (methods that train it)."""
    weight_decay: float = Recipe.weight_decay
    warmup: float = Recipe.warmup
    """Fraction of the steps over which the learning rate rises."""
    compile: bool = False
    """Compile the image encoder, which takes minutes at first; the same result but for rounding."""
    activation_checkpointing: bool = False
    """Keep the layers' inputs alone and compute the rest again: less memory, slower, the same result."""
    precision: Precision = Recipe.precision
    """fp32, or bf16 for the encoders' matrix products: faster on GPUs; pixels, geometry and losses stay fp32."""
    seed: int = Recipe.seed
    space: Literal["poincare", "euclidean", "sphere"] | None = None
    """Where images and texts are compared: poincare for hierarchical, CLIP's sphere for the others, or as said here."""
    curvature: float = 1.0
    """r of the Poincare ball of curvature -r."""
    scale: float = Recipe.scale
    """Factor on the head's logit scale; below 1 is softer."""
    depths: Depths = field(default_factory=Depths)
    template: str = TEMPLATE
    """The prompt of a class; {} becomes its name."""
    shard_weights: bool = False
    """Spread weights, gradients and moments over all processes (FSDP2), for encoders beyond one GPU: slower, the same
    result but for rounding."""
    save_every: int = 50
    """Steps between saved states."""
    tensorboard: bool = False
    """Write training curves for TensorBoard beside log.csv."""
    wandb: bool = False
    """Write them for Weights & Biases, too; nothing is sent unless WANDB_MODE=online."""
    device: Device | None = None
    """cpu or cuda; the GPU if there is one, unless said here."""

    def recipe(self) -> Recipe:
        return Recipe(
            method=self.method,
            space=self._space(),
            scale=self.scale,
            depths=self.depths,
            template=self.template,
            threat=self.threat.threat(),
            attack=PGD(steps=self.attack.steps, step_size=self.attack.step_size, best=False),
            steps=self.steps,
            batch_size=self.batch_size,
            micro_batches=self.micro_batches,
            window=self.window,
            lr=self.lr,
            text_lr=self.text_lr,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            precision=self.precision,
            seed=self.seed,
        )

    def _space(self) -> Space:
        name = self.space or ("poincare" if isinstance(self.method, Hierarchical) else "sphere")
        return {"poincare": Poincare(curvature=self.curvature), "euclidean": Euclidean(), "sphere": Sphere()}[name]


def _named(name: str, method: type) -> object:
    """The sub-command of a method; its line in the help is that of the method's module."""
    about = " ".join((sys.modules[method.__module__].__doc__ or "").partition("\n\n")[0].split())
    return tyro.conf.subcommand(name, description=about)


Command = (
    Annotated[Options[TeCoA], _named("tecoa", TeCoA)]
    | Annotated[Options[FARE], _named("fare", FARE)]
    | Annotated[Options[PMGAFT], _named("pmg-aft", PMGAFT)]
    | Annotated[Options[AGFT], _named("agft", AGFT)]
    | Annotated[Options[Hierarchical], _named("hierarchical", Hierarchical)]
)


def run(arguments: Sequence[str]) -> int:
    options = parse(Command, arguments, command="harden", about="Harden a model against adversarial images.")
    device = choose_device(options.device)
    recipe, forest = options.recipe(), forest_of_trees(options.trees, options.data)
    data = _data(options, forest)
    finished = is_finished(options.output, recipe, forest, data=options.data, model=options.model)
    runtime = Runtime(
        cpu=device.type == "cpu",
        compiled=options.compile,
        activation_checkpointing=options.activation_checkpointing,
        shard_weights=options.shard_weights,
    )
    cost = ""
    if not finished:
        model, pace = open_model(options.model), Pace()
        with curves_in(options, recipe, wanted=runtime.is_main) as curves:
            hardened = harden_with_bar(
                model,
                data,
                forest,
                recipe,
                options.output,
                console=Console(stderr=True, quiet=not runtime.is_main),
                title=f"harden {arguments[0]}",
                runtime=runtime,
                save_every=options.save_every,
                listeners=(pace, *curves),
            )
        if pace.images_a_second and runtime.is_main:
            side = model.image_encoder.preprocessing.resolution
            about = cost_line(
                pace.images_a_second, hardened, recipe, side, device=runtime.device, processes=runtime.world
            )
            cost = f"cost            {about}\n"
    if runtime.is_main:
        output = str(options.output)
        audit = ["robustree", "audit", options.model, output, "--data", options.data, "--output", f"{output}-audit"]
        print(f"hardened model  {output}\n{cost}next            {shlex.join(audit)}")
    return 0


def _data(options: Options[Any], forest: Forest) -> DataSet:
    if options.window is None:
        return data_over(options.data, forest)
    first = process_number()[0] == 0
    with Bar(Console(stderr=True, quiet=not first), "index", 1.0) as bar:

        def report(done: int, total: int) -> None:
            bar.update(done / total, images=0, work=1 / total, doing=f"shard {done} of {total}")

        return streamed(options.data, forest, window=options.window, index=options.index, report=report)


@contextmanager
def curves_in(options: Options[Any], recipe: Recipe, *, wanted: bool) -> Iterator[list[Curves]]:
    """The listeners to training steps that write the curves which were asked for, if this process is `wanted` to."""
    with ExitStack() as stack:
        writers: list[Curves] = []
        if wanted and options.tensorboard:
            writers.append(stack.enter_context(TensorBoard(options.output / "tensorboard")))
        if wanted and options.wandb:
            writers.append(stack.enter_context(WandB(options.output, recipe_record(recipe))))
        yield writers


def is_finished(directory: Path, recipe: Recipe, forest: Forest, *, data: str, model: str) -> bool:
    """Whether `directory` already is the checkpoint of this run.

    Raises:
        ValueError: it is the checkpoint of another run.
    """
    path = directory / MARKER
    if not path.is_file():
        return False
    content = json.loads(path.read_text(encoding="utf-8"))
    record = content["record"]
    wanted = {"recipe": json.loads(json.dumps(recipe_record(recipe))), "data": data, "model": model}
    found = {name: record.get(name) for name in wanted} | {"forest": content["forest"]["fingerprint"]}
    wanted["forest"] = forest.fingerprint
    different = [name for name in wanted if wanted[name] != found[name]]
    if different:
        raise ValueError(
            f"{str(directory)!r} holds a model that was hardened with another {different[0]}: choose another --output."
        )
    return True


def harden_with_bar(
    model: VisionLanguageModel,
    data: DataSet,
    forest: Forest,
    recipe: Recipe,
    directory: Path,
    *,
    console: Console,
    title: str,
    runtime: Runtime,
    save_every: int = 50,
    listeners: Sequence[Callable[[Progress], None]] = (),
) -> TreeModel:
    """Harden behind a progress bar; Ctrl-C and SIGTERM save the state first. `listeners` are told of every step too.

    Raises:
        Ended: interrupted (130, 143, 138), or not able to go on: not finite, no memory, no disk space, a process of the
            run lost (1).
    """
    last = 0
    kept = f"the last saved state, if there is one, stays in {directory}; run the same command to go on"
    with keeping(kept), _spoken_warnings(), orderly_stop() as stop, Bar(console, title, recipe.steps) as bar:

        def report(progress: Progress) -> None:
            nonlocal last
            last = progress.step
            for listener in listeners:
                listener(progress)
            bar.update(last, images=progress.images, work=1, doing=f"loss {progress.logs['loss']:.3f}")

        try:
            hardened = harden(
                model, data, forest, recipe, directory, runtime=runtime, save_every=save_every, report=report, stop=stop
            )
        except StoppedError as error:
            raise Ended(f"error: {sentence(error)}", 1) from error
        except LostProcessError as error:
            raise Ended(f"error: {sentence(error)}; {kept}.", 1) from error
        if 0 < last < recipe.steps:
            number = stop.signal or signal.SIGTERM  # no signal here: another process was asked, and all stop together
            name = "interrupted" if number == signal.SIGINT else "terminated"
            raise Ended(
                f"{name} after step {last} of {recipe.steps}: the state is in {directory}; "
                "run the same command to go on.",
                128 + number,
            )
    return hardened


@contextmanager
def _spoken_warnings() -> Iterator[None]:
    """What a run has to say about its course as one line each on stderr, without the place in the code."""
    usual = warnings.showwarning

    def speak(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
        if issubclass(category, ChangedCourseWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            usual(message, category, *place, **rest)

    warnings.showwarning = speak
    try:
        yield
    finally:
        warnings.showwarning = usual
