"""A vision-language model read at every node of a forest: one `forward(images) -> Scores`.

Points are tangent vectors at the origin of the head's space (docs/method.md, section 3): image v_x = rho_img f(x) /
c_img, text v_t = rho_t W h_t / |W_0 h_t|, with h_t the cached text feature before the projection W, and W_0 the
pretrained projection. Every node's logit is -scale * distance(v_x, v_t)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from robustree.geometry import Space, Sphere, bound_norm
from robustree.models.encoder import VisionLanguageModel
from robustree.taxonomy import Cut, Forest

TEMPLATE = "This is a photo of a {}"
Precision = Literal["fp32", "bf16"]
"""In what the encoders' matrix products are computed; pixels, weights, geometry and losses are fp32 in both."""


class Scores(NamedTuple):
    """What a `TreeModel` says about a batch.

    `points` (B, D) images and `prototypes` (N, D) node texts, both tangent vectors; `nodes` (B, N) one logit a node
    of the forest."""

    points: Tensor
    prototypes: Tensor
    nodes: Tensor

    def at(self, cut: Cut) -> Tensor:
        """The logits (B, K) over the K nodes of a cut."""
        return self.nodes[:, columns(cut.nodes, self.nodes.device)]

    def take(self, index: Tensor) -> Scores:
        """The scores of some images of the batch; `index` (M,) positions or a (B,) mask."""
        return Scores(self.points[index], self.prototypes, self.nodes[index])


@lru_cache(maxsize=512)
def columns(nodes: tuple[int, ...], device: torch.device) -> Tensor:
    """Node ids as an index tensor on `device`; cached, because a transfer per attack step costs a synchronisation."""
    return torch.tensor(nodes, device=device)


@dataclass(frozen=True, kw_only=True)
class Depths:
    """Tangent norms of step 0: images at `image`, leaf texts at `leaf`, going linearly with the level towards `root`.

    The geodesic depth is twice the norm; `limit` bounds image norms smoothly. By default all texts start equally deep:
    every cut then ranks as CLIP does, also where a ragged tree mixes leaves with superclasses, and training orders the
    depths. With root < leaf the order is there from the start (measured equal: benchmarks/hierarchical_sweep.json).
    """

    image: float = 0.5
    leaf: float = 0.6
    root: float = 0.6
    limit: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.root <= self.leaf < self.limit or not 0 < self.image < self.limit:
            raise ValueError(
                f"depths are image {self.image}, leaf {self.leaf}, root {self.root}, limit {self.limit}; "
                "0 < root <= leaf < limit and 0 < image < limit must hold: lower the first three or raise the limit."
            )


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where the comparison of images and texts happens.

    `space`: its distance makes the logits, -`scale` * distance. `depths`: the ladder of norms at step 0 (without
    effect on the decisions of the sphere, which compares directions only)."""

    space: Space
    scale: float
    depths: Depths = field(default_factory=Depths)


def cosine_head(model: VisionLanguageModel) -> Head:
    """CLIP's own head: logits = logit_scale * (cos - 1), the softmax of logit_scale * cos."""
    return Head(space=Sphere(), scale=model.logit_scale)


def matched_head(space: Space, model: VisionLanguageModel, *, cosine: float, depths: Depths | None = None) -> Head:
    """A head in `space` whose logit has, at the mean image-text `cosine`, the slope of CLIP's logit in the cosine.

    scale = logit_scale / |d distance / d cos| at norms (image, leaf). Among nodes of one norm, so within every cut of
    a uniform tree, the zero-shot ranking is then CLIP's own at step 0; a ragged cut mixes norms and may rank otherwise.

    Raises:
        ValueError: `cosine` is not inside (-1, 1).
    """
    if not -1 < cosine < 1:
        raise ValueError(
            f"the mean image-text cosine is {cosine}; it must lie inside (-1, 1): measure it on images of the task."
        )
    depths = depths or Depths()
    with torch.inference_mode(False), torch.enable_grad():  # a caller that only reads may have switched gradients off
        angle = torch.tensor(math.acos(cosine), dtype=torch.float64, requires_grad=True)
        point = torch.tensor([[depths.image, 0.0]], dtype=torch.float64)
        prototype = depths.leaf * torch.stack([torch.cos(angle), torch.sin(angle)])[None]
        (slope,) = torch.autograd.grad(space.pairwise_distance(point, prototype).sum(), angle)
    return Head(space=space, scale=model.logit_scale * math.sin(float(angle.detach())) / float(slope), depths=depths)


class TreeModel(nn.Module):
    """Encoder, text projection, cached node texts, head and forest: the only module that is trained."""

    text_features: Tensor
    image_norm: Tensor
    pretrained_norm: Tensor
    radii: Tensor
    precision: Precision = "fp32"

    def __init__(
        self,
        image_encoder: nn.Module,
        text_projection: nn.Linear,
        text_features: Tensor,
        forest: Forest,
        head: Head,
        *,
        image_norm: float,
        pretrained_projection: nn.Linear | None = None,
    ):
        """`text_features` (N, H): one row a forest node. `image_norm`: the mean norm c_img of the pretrained
        embeddings. `pretrained_projection`: W_0; a frozen copy of `text_projection` unless given (a hardened
        checkpoint brings its own)."""
        super().__init__()
        if len(text_features) != len(forest.names):
            raise ValueError(
                f"{len(text_features)} text features were given; the forest has {len(forest.names)} nodes: "
                "encode one prompt a node."
            )
        self.image_encoder = image_encoder
        self.text_projection = text_projection
        self.forest = forest
        self.head = head
        self.register_buffer("text_features", text_features.detach().clone(), persistent=False)
        device = text_features.device
        self.register_buffer("image_norm", torch.tensor(float(image_norm), device=device))
        self.pretrained_projection = (pretrained_projection or deepcopy(text_projection)).requires_grad_(False)
        with torch.no_grad():
            pretrained_norm = self.pretrained_projection(text_features).norm(dim=1)
        self.register_buffer("pretrained_norm", pretrained_norm, persistent=False)
        self.register_buffer("radii", torch.tensor(node_radii(forest, head.depths), device=device), persistent=False)

    def forward(self, images: Tensor, text_shift: Tensor | None = None) -> Scores:
        """Scores of images (B, 3, H, W) in [0, 1]; `text_shift` (N, H) moves the unit-norm cached text features."""
        points, prototypes = self.image_points(images), self.prototypes(text_shift)
        return Scores(points, prototypes, -self.head.scale * self.head.space.pairwise_distance(points, prototypes))

    def image_points(self, images: Tensor) -> Tensor:
        with self._encoding(images):
            embeddings = self.image_encoder(images)
        embeddings = embeddings.float()
        if isinstance(self.head.space, Sphere):
            return embeddings  # un-normalised, as FARE compares them; the sphere looks at directions only
        return bound_norm(embeddings * (self.head.depths.image / self.image_norm), self.head.depths.limit)

    def prototypes(self, text_shift: Tensor | None = None) -> Tensor:
        """Tangent vectors (N, D) of all node texts."""
        features = self.text_features
        if text_shift is not None:
            features = features + text_shift * features.norm(dim=1, keepdim=True)
        with self._encoding(features):
            embeddings = self.text_projection(features)
        return embeddings.float() * (self.radii / self.pretrained_norm)[:, None]

    def _encoding(self, inputs: Tensor) -> AbstractContextManager[object]:
        # Around the encoders alone: what is outside of autocast cannot become bfloat16.
        return torch.autocast(inputs.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def text_shift(self) -> Tensor:
        """A zero perturbation of the node texts (N, H), for attacks that move texts too."""
        return torch.zeros_like(self.text_features)

    def with_head(self, head: Head) -> TreeModel:
        """The same weights (shared) read by another head."""
        return self._sharing(self.text_features, self.forest, head)

    def over(
        self, forest: Forest, text_features: Callable[[Sequence[str]], Tensor], template: str = TEMPLATE
    ) -> TreeModel:
        """The same weights (shared) read over another forest, whose prompts `text_features` encodes."""
        return self._sharing(text_features(fill(template, forest.names)), forest, self.head)

    def _sharing(self, text_features: Tensor, forest: Forest, head: Head) -> TreeModel:
        return TreeModel(
            self.image_encoder,
            self.text_projection,
            text_features,
            forest,
            head,
            image_norm=float(self.image_norm),
            pretrained_projection=self.pretrained_projection,
        )


def node_radii(forest: Forest, depths: Depths) -> list[float]:
    """The tangent norm of every node: leaf + (root - leaf) * l / (L + 1) at the finest level l of its tree that shows
    it."""
    radii = [depths.leaf] * len(forest.names)
    for tree in forest.trees:
        for level in range(len(tree.levels), 0, -1):
            for node in tree.levels[level - 1]:
                if node >= forest.leaf_count:
                    radii[node] = depths.leaf + (depths.root - depths.leaf) * level / (len(tree.levels) + 1)
    return radii


def build_tree_model(
    model: VisionLanguageModel,
    forest: Forest,
    *,
    images: Tensor,
    space: Space | None = None,
    depths: Depths | None = None,
    scale: float = 1.0,
    template: str | Sequence[str] = TEMPLATE,
) -> TreeModel:
    """A `TreeModel` over `forest` with the pretrained weights of `model` (shared, not copied).

    `images` (B, 3, H, W) in [0, 1] of the task, a few dozen suffice, set the scale: their mean embedding norm c_img
    and their mean cosine with their nearest leaf text. `space`: Sphere() (CLIP's own head, default), Poincare(r) or
    Euclidean(). `scale` multiplies the head's logit scale. Several templates are an ensemble (`encode_names`).

    Raises:
        ValueError: a template has no "{}".
    """
    text_features = encode_names(model, forest.names, template)
    with torch.no_grad():
        embeddings = model.image_encoder(images)
        leaves = model.text_projection(text_features[: forest.leaf_count])
        cosines = torch.nn.functional.normalize(embeddings) @ torch.nn.functional.normalize(leaves).T
    head = cosine_head(model)
    if space is not None and not isinstance(space, Sphere):
        head = matched_head(space, model, cosine=float(cosines.max(dim=1).values.mean()), depths=depths)
    head = replace(head, scale=scale * head.scale)
    image_norm = float(embeddings.norm(dim=1).mean())
    return TreeModel(model.image_encoder, model.text_projection, text_features, forest, head, image_norm=image_norm)


def encode_names(model: VisionLanguageModel, names: Sequence[str], template: str | Sequence[str]) -> Tensor:
    """Text features (N, H) of names in a template or, for several, of their ensemble: the projection W sends it to the
    direction of the mean of the unit embeddings, sum_t W h_t / |W h_t|.

    W is affine, so this is the mean of the features h_t weighted by 1 / |W h_t|: an ensemble is one feature, and
    nothing after it knows of templates. While W is trained, the weights stay those of the pretrained one.

    Raises:
        ValueError: there is no template, or one has no "{}".
    """
    templates = (template,) if isinstance(template, str) else tuple(template)
    if not templates:
        raise ValueError("no template was given: give at least one, such as 'a photo of a {}'.")
    features = torch.stack([model.text_features(fill(each, names)) for each in templates])
    if len(templates) == 1:
        return features[0]
    with torch.no_grad():
        weights = 1 / model.text_projection(features).norm(dim=2, keepdim=True)
        return (weights * features).sum(0) / weights.sum(0)


def fill(template: str, names: Sequence[str]) -> list[str]:
    """The prompts: each name put into the template.

    Raises:
        ValueError: the template has no "{}".
    """
    if template.count("{}") != 1:
        raise ValueError(f"the template is {template!r}; it needs exactly one {{}} where the class name goes.")
    return [template.replace("{}", name) for name in names]


Predictor = Callable[[Tensor], Scores]
"""What attacks and audits call: images -> `Scores`."""
