from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustree.geometry import Euclidean, Poincare, Space, Sphere
from robustree.models.encoder import VisionLanguageModel
from robustree.taxonomy import Cut, Forest
from robustree.tree_model import (
    Depths,
    Head,
    Scores,
    TreeModel,
    build_tree_model,
    cosine_head,
    fill,
    matched_head,
    node_radii,
)

SPACES = [Poincare(curvature=0.5), Poincare(curvature=1.0), Poincare(curvature=2.0), Euclidean(), Sphere()]
MakeModel = Callable[..., TreeModel]
MakeImages = Callable[[int], Tensor]


@pytest.fixture
def clip(make_tiny_clip: Callable[[int], VisionLanguageModel]) -> VisionLanguageModel:
    return make_tiny_clip(0)


def name(space: Space) -> str:
    return f"{space.name}-{getattr(space, 'curvature', '')}"


def test_scores_are_read_in_the_order_of_the_cut_and_of_the_index() -> None:
    scores = Scores(torch.arange(6.0).view(3, 2), torch.zeros(4, 2), torch.arange(12.0).view(3, 4))
    assert scores.at(Cut("t", 1, (3, 0, 2), (0, 1, 2))).tolist() == [[3, 0, 2], [7, 4, 6], [11, 8, 10]]
    for index in (torch.tensor([2, 0]), torch.tensor([True, False, True])):
        taken = scores.take(index)
        assert torch.equal(taken.nodes, scores.nodes[index]) and torch.equal(taken.points, scores.points[index])
        assert taken.prototypes is scores.prototypes


@pytest.mark.parametrize("space", SPACES, ids=name)
@pytest.mark.parametrize("cosine", [-0.5, 0.05, 0.25, 0.9])
@pytest.mark.parametrize(
    "depths", [Depths(), Depths(image=0.4, leaf=2.0, root=0.1, limit=3.0)], ids=["default", "deep"]
)
def test_the_matched_logit_has_the_slope_of_clip_in_the_cosine(
    space: Space, cosine: float, depths: Depths, clip: VisionLanguageModel
) -> None:
    head = matched_head(space, clip, cosine=cosine, depths=depths)

    def logit(c: float) -> float:
        point = torch.tensor([[depths.image, 0.0]], dtype=torch.float64)
        text = depths.leaf * torch.tensor([[c, math.sqrt(1 - c * c)]], dtype=torch.float64)
        return -head.scale * space.pairwise_distance(point, text).item()

    slope = (logit(cosine + 1e-4) - logit(cosine - 1e-4)) / 2e-4
    assert slope == pytest.approx(clip.logit_scale, rel=1e-5)
    assert head.space is space and head.depths == depths


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_head_is_matched_where_gradients_are_off_too(mode: Callable[[], Any], clip: VisionLanguageModel) -> None:
    with mode():
        inside = matched_head(Poincare(), clip, cosine=0.2)
    assert inside == matched_head(Poincare(), clip, cosine=0.2)


@pytest.mark.parametrize("cosine", [-1.0, 1.0, 1.5, math.nan])
def test_a_mean_cosine_outside_its_range_is_refused(cosine: float, clip: VisionLanguageModel) -> None:
    with pytest.raises(ValueError, match=rf"^the mean image-text cosine is {cosine}; it must lie inside \(-1, 1\)"):
        matched_head(Poincare(), clip, cosine=cosine)


def test_the_cosine_head_is_clip(
    make_tree_model: MakeModel, clip: VisionLanguageModel, tiny_images: MakeImages
) -> None:
    model, images = make_tree_model(Sphere()), tiny_images(5)
    texts = clip.text_projection(clip.text_features(fill("This is a photo of a {}", model.forest.names)))
    cosine = F.cosine_similarity(clip.image_encoder(images)[:, None], texts[None], dim=2)
    assert torch.allclose(model(images).nodes, 100 * (cosine - 1), atol=1e-4)
    assert torch.equal(model(images).points, clip.image_encoder(images))
    assert cosine_head(clip) == Head(space=Sphere(), scale=100.0)


@pytest.mark.parametrize("space", SPACES[:-1], ids=name)
def test_step_0_ranks_as_clip_does_among_the_nodes_of_one_radius(
    space: Space, make_tree_model: MakeModel, tiny_images: MakeImages
) -> None:
    # the distance to prototypes of one norm falls with the cosine, so this is exact up to float32 rounding
    model, images = make_tree_model(space), tiny_images(64)
    made, cosine = model(images).nodes, make_tree_model(Sphere())(images).nodes
    whole = []
    for cut in model.forest.cuts():
        radii = model.radii[list(cut.nodes)]
        for radius in radii.unique():
            nodes = [node for node, own in zip(cut.nodes, radii, strict=True) if own == radius]
            order = cosine[:, nodes].argsort(1, descending=True)
            falling = made[:, nodes].gather(1, order).diff(dim=1)
            assert (falling <= 1e-4 * model.head.scale).all()
            if len(nodes) == len(cut.nodes):
                whole.append(cut.label)
                assert torch.equal(made[:, nodes].argmax(1), cosine[:, nodes].argmax(1))
    assert whole == ["leaf", "kind/1", "kind/2"]  # a ragged level mixes the radii of leaves and of inner nodes


@pytest.mark.parametrize("space", SPACES[:-1], ids=name)
def test_without_a_ladder_step_0_decides_as_clip_does_at_ragged_levels_too(
    space: Space, make_tree_model: MakeModel, tiny_images: MakeImages
) -> None:
    model, images = make_tree_model(space), tiny_images(64)
    flat = model.with_head(replace(model.head, depths=Depths(leaf=0.9, root=0.9)))
    cosine = make_tree_model(Sphere())(images)
    for cut in model.forest.cuts():
        assert torch.equal(flat(images).at(cut).argmax(1), cosine.at(cut).argmax(1))


def test_at_a_ragged_level_step_0_may_decide_otherwise() -> None:
    # leaf text at norm 1.2 with cosine 0.80, inner text at norm 1.05 with cosine 0.79, image at norm 1
    point = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    texts = torch.tensor([[1.2 * 0.80, 1.2 * 0.6], [1.05 * 0.79, 1.05 * math.sqrt(1 - 0.79**2)]], dtype=torch.float64)
    assert Sphere().pairwise_distance(point, texts).argmin() == 0
    assert Poincare().pairwise_distance(point, texts).argmin() == 1
    assert Euclidean().pairwise_distance(point, texts).argmin() == 1


def test_radii_fall_along_every_path_on_a_straight_ladder(two_trees: Forest) -> None:
    depths = Depths(leaf=1.2, root=0.6)
    radii = dict(zip(two_trees.names, node_radii(two_trees, depths), strict=True))
    assert [radii[leaf] for leaf in two_trees.leaves] == [1.2] * 9
    assert radii["mammal"] == radii["fruit"] == pytest.approx(1.0)
    assert radii["animal"] == radii["food"] == pytest.approx(0.8)
    # wild is shown at levels 1, 2 and 3 of home: the finest counts
    assert radii["larder"] == radii["bin"] == radii["wild"] == pytest.approx(1.05)
    assert [radii["stored"], radii["kept"]] == pytest.approx([0.9, 0.75])
    for tree in two_trees.trees:
        for leaf in range(two_trees.leaf_count):
            path = [node_radii(two_trees, depths)[node] for node in two_trees.path(tree.name, leaf)]
            assert path == sorted(path, reverse=True) and path[-1] > depths.root


@pytest.mark.parametrize("space", SPACES, ids=name)
def test_step_0_puts_texts_on_the_ladder(space: Space, make_tree_model: MakeModel) -> None:
    model = make_tree_model(space)
    assert torch.allclose(model.prototypes().norm(dim=1), torch.tensor(node_radii(model.forest, model.head.depths)))


@pytest.mark.parametrize("space", SPACES[:-1], ids=name)
def test_image_points_are_scaled_embeddings_of_bounded_norm(
    space: Space, make_tree_model: MakeModel, tiny_images: MakeImages
) -> None:
    model = make_tree_model(space)
    model = model.with_head(Head(space=space, scale=1.0, depths=Depths(image=0.7, limit=1.5)))
    embeddings = model.image_encoder(tiny_images(16))  # the images that set the norm c_img
    scaled = 0.7 * embeddings / embeddings.norm(dim=1).mean()
    length = scaled.norm(dim=1, keepdim=True)
    assert torch.allclose(model.image_points(tiny_images(16)), 1.5 * torch.tanh(length / 1.5) * scaled / length)


def test_image_norms_stay_below_the_limit_however_long_the_embedding(
    make_tree_model: MakeModel, tiny_images: MakeImages
) -> None:
    model = make_tree_model(Poincare())
    with torch.no_grad():
        model.image_encoder.projection.weight *= 1e4
    images = tiny_images(4).requires_grad_(True)
    scores = model(images)
    assert (scores.points.norm(dim=1) <= model.head.depths.limit * (1 + 1e-6)).all()
    (gradient,) = torch.autograd.grad(scores.nodes.sum(), images)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("space", SPACES, ids=name)
def test_nodes_are_scaled_distances_and_a_zero_text_shift_is_the_identity(
    space: Space, make_tree_model: MakeModel, tiny_images: MakeImages
) -> None:
    model, images = make_tree_model(space), tiny_images(3)
    plain, shifted = model(images), model(images, model.text_shift())
    assert torch.equal(plain.nodes, -model.head.scale * space.pairwise_distance(plain.points, plain.prototypes))
    assert all(torch.equal(a, b) for a, b in zip(plain, shifted, strict=True))
    assert model.text_shift().shape == model.text_features.shape and not model.text_shift().any()


def test_a_text_shift_moves_the_unit_norm_feature(make_tree_model: MakeModel) -> None:
    model = make_tree_model(Poincare())
    shift = 0.01 * torch.randn(model.text_features.shape, generator=torch.Generator().manual_seed(1))
    features, weight = model.text_features, model.text_projection.weight
    unit = features / features.norm(dim=1, keepdim=True)
    moved = (unit + shift) @ weight.T / (unit @ weight.T).norm(dim=1, keepdim=True) * model.radii[:, None]
    assert torch.allclose(model.prototypes(shift), moved, atol=1e-5)


def test_another_head_shares_the_weights(make_tree_model: MakeModel, tiny_images: MakeImages) -> None:
    model, images = make_tree_model(Poincare()), tiny_images(4)
    other = model.with_head(Head(space=Sphere(), scale=100.0))
    storage = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in other.parameters()} == storage
    assert other.image_norm == model.image_norm and other.head.space == Sphere()
    before = other(images).nodes.clone()
    with torch.no_grad():
        model.text_projection.weight[0] += 1
    assert not torch.equal(other(images).nodes, before)
    back = other.with_head(model.head)
    assert all(torch.equal(a, b) for a, b in zip(back(images), model(images), strict=True))


def test_another_forest_is_read_by_the_same_weights(
    make_tree_model: MakeModel, clip: VisionLanguageModel, tiny_images: MakeImages
) -> None:
    model, images = make_tree_model(Poincare()), tiny_images(4)
    with torch.no_grad():
        model.text_projection.weight[0] += 0.3  # trained since; the frozen pretrained norms stay the reference
    home = model.over(model.forest.select(["home"]), clip.text_features)
    assert home.text_projection is model.text_projection
    for cut in home.forest.cuts():
        assert torch.allclose(home(images).at(cut), model(images).at(model.forest.find_cut(cut.label)), atol=1e-4)


@pytest.mark.parametrize("space", SPACES, ids=name)
@pytest.mark.parametrize("trains_text", [True, False])
def test_gradients_reach_the_image_encoder_and_only_when_asked_the_text_projection(
    space: Space, trains_text: bool, make_tree_model: MakeModel, tiny_images: MakeImages
) -> None:
    model = make_tree_model(space)
    model.text_projection.requires_grad_(trains_text)
    F.cross_entropy(model(tiny_images(5)).at(model.forest.leaf_cut), torch.arange(5)).backward()
    reached = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    encoder = {f"image_encoder.{key}" for key, _ in model.image_encoder.named_parameters()}
    assert reached == encoder | ({"text_projection.weight"} if trains_text else set())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert not model.pretrained_projection.weight.requires_grad and not model.text_features.requires_grad
    assert model.pretrained_projection.weight.data_ptr() != model.text_projection.weight.data_ptr()


def test_building_measures_the_images(two_trees: Forest, clip: VisionLanguageModel, tiny_images: MakeImages) -> None:
    images = tiny_images(6)
    built = build_tree_model(clip, two_trees, images=images, space=Poincare(), template="a {}!")
    embeddings = clip.image_encoder(images)
    texts = clip.text_projection(clip.text_features([f"a {leaf}!" for leaf in two_trees.leaves]))
    nearest = F.cosine_similarity(embeddings[:, None], texts[None], dim=2).amax(1).mean().item()
    assert built.head.scale == pytest.approx(matched_head(Poincare(), clip, cosine=nearest).scale, rel=1e-4)
    assert built.image_norm.item() == pytest.approx(embeddings.norm(dim=1).mean().item())
    assert build_tree_model(clip, two_trees, images=images).head == cosine_head(clip)


def test_a_model_lives_where_its_text_features_are(two_trees: Forest) -> None:
    there = torch.device("meta")
    features = torch.zeros(len(two_trees.names), 12, device=there)
    model = TreeModel(nn.Identity(), nn.Linear(12, 8, device=there), features, two_trees, HEAD, image_norm=2.0)
    assert {tensor.device for tensor in (*model.buffers(), *model.parameters())} == {there}


HEAD = Head(space=Poincare(), scale=10.0)


def test_a_model_refuses_another_number_of_texts(two_trees: Forest) -> None:
    with pytest.raises(
        ValueError, match=r"^3 text features were given; the forest has 20 nodes: encode one prompt a n"
    ):
        TreeModel(nn.Identity(), nn.Linear(12, 8), torch.zeros(3, 12), two_trees, HEAD, image_norm=2.0)


@pytest.mark.parametrize(
    "bad",
    [{"image": 0.0}, {"image": 3.0}, {"leaf": 0.5}, {"root": 0.0}, {"root": -1.0}, {"limit": 0.6}, {"leaf": math.nan}],
)
def test_impossible_depths_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^depths are image .* lower the first three or raise the limit\.$"):
        Depths(**bad)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", ""])
def test_a_template_without_one_place_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"it needs exactly one \{\} where the class name goes\.$"):
        fill(template, ["dog"])


def test_templates_are_filled_verbatim() -> None:
    assert fill("a {}, {0} {x}", ["dog", "{}"]) == ["a dog, {0} {x}", "a {}, {0} {x}"]


def test_an_ensemble_is_the_mean_of_unit_embeddings(
    make_tiny_clip: Callable[[int], VisionLanguageModel], two_trees: Forest, tiny_images: Callable[[int], Tensor]
) -> None:
    """Against the embeddings of each template on its own, with and without a bias in the projection."""
    templates = ("a photo of a {}.", "a drawing of the {}.", "{} in the wild")
    for biased in (False, True):
        clip = make_tiny_clip(3)
        if biased:
            clip.text_projection.bias = torch.nn.Parameter(torch.linspace(-1, 1, 8))
        model = build_tree_model(clip, two_trees, images=tiny_images(4), template=templates)
        each = [
            [clip.text_projection(clip.text_features([t.replace("{}", name)]))[0] for name in two_trees.names]
            for t in templates
        ]
        units = torch.stack([torch.stack(row) for row in each]).double()
        units = units / units.norm(dim=2, keepdim=True)
        wanted = units.mean(0) / units.mean(0).norm(dim=1, keepdim=True)
        found = model.prototypes().double()
        torch.testing.assert_close(found / found.norm(dim=1, keepdim=True), wanted, atol=1e-6, rtol=0)
    one = build_tree_model(make_tiny_clip(3), two_trees, images=tiny_images(4), template=(templates[0],))
    same = build_tree_model(make_tiny_clip(3), two_trees, images=tiny_images(4), template=templates[0])
    assert torch.equal(one.text_features, same.text_features)
    with pytest.raises(ValueError, match="no template was given"):
        build_tree_model(make_tiny_clip(3), two_trees, images=tiny_images(4), template=())
