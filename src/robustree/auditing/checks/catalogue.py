"""Titles and rules of the 27 checks, and the limits that the rules name.

The checks are those that reviews of robustness claims ask for (Carlini et al. 2019; Croce & Hein 2020, section on
flags; Pintor et al. 2022; Zimmermann et al. 2022; Tramer et al. 2020), and some that label trees need."""

from __future__ import annotations

SATURATED = 1 - 1e-6
"""A softmax probability above which the gradient of a cross-entropy is lost in rounding."""
SHARE_OF_IMAGES = 0.1
"""Saturated images, images without a gradient and images still rising, of all: more than a tenth is a flag."""
UNBOUNDED = 0.05
"""Images that an attack without a bound may leave standing, of those that were right."""
AIMED = 0.9
"""Aimed attacks without a bound that must reach their node."""
STEPS, RESTARTS, BLACK_BOX, FOREIGN = 0.005, 0.003, 0.002, 0.01
"""Images that only twice the steps, another start, a black box, or an attack on another level breaks, of all."""
MASKED = 0.05
"""Images that only a black box or noise breaks, of all: more says that the gradients hide something."""
ORDER = 0.01
"""Points of accuracy by which a stronger attack may be weaker, of all."""
MOVING = 0.05
"""Gain of the last steps, of the whole gain."""
UNSTABLE = 0.5
"""Mean change of the margin under noise, of the mean margin."""
SLOPE = 2.0
"""Factor between a gradient's promise and the change that it makes."""
PLANTED, PLANTED_FAIL = 0.8, 0.9
"""How far towards a planted class an attack must come; images in which it must."""
PREPROCESSING = 1e-3
"""Difference between what the tower receives and what its record prescribes, in normalised pixels."""
SPREAD = 1e-4
"""Difference between two forwards, of the spread of an image's scores."""
JUDGED = 0.02
"""Decisions about adversarial images that may change with the batch size, of all."""
REMADE, CLEAN_REMADE = 0.1, 0.01
"""Attacked and clean decisions that may differ from the rows, of all."""
ALIKE = 0.999
"""Cosine of two node texts that a model can hardly tell apart."""
AGREEMENT = 0.1
"""Cohen's kappa between a level's own decision and its best leaf's."""
HALF_WIDTH = 0.1
"""Of the 95 % interval of a robust accuracy."""
PRECISION = 0.05
"""Images whose fate differs between a bfloat16 and a float32 search, of all."""


def allowed(share: float, n: int) -> int:
    """How many of n images a rule tolerates: the share, but always one, which proves nothing."""
    return max(1, int(share * n))


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


RULES: dict[str, tuple[str, str]] = {
    "S1": ("pixels", "fail unless images are floats (N, 3, H, W) that fill [0, 1] and nothing outside."),
    "S2": (
        "normalisation and eps",
        "fail if eps is below half of 1/255 a pixel or the model normalises otherwise than its record says (mean and "
        f"std within 1 %); flag eps above 1/4 or a tower that receives pixels off by more than {PREPROCESSING:g}.",
    ),
    "S3": (
        "same answer twice",
        f"fail if two forwards differ by more than {SPREAD:g} of the scores' spread (flag, if the plan averages over "
        "samples); flag dropout or batch statistics in train mode.",
    ),
    "S4": (
        "scores are logits",
        "fail if scores are not finite or are probabilities; flag if a probability is above 1 - 1e-6 in more than "
        f"{_percent(SHARE_OF_IMAGES)} of the images.",
    ),
    "S5": (
        "gradients are there",
        "fail if a gradient is not finite or the margin's is zero in more than "
        f"{_percent(SHARE_OF_IMAGES)} of the images; flag if only a cross-entropy that the plan uses is.",
    ),
    "S6": (
        "an unbounded attack wins",
        f"fail if more than {_percent(UNBOUNDED)} of the right images stand without a bound on the change; flag if "
        f"fewer than {_percent(AIMED)} of attacks aimed at one superclass reach it.",
    ),
    "S7": (
        "larger eps, fewer survivors",
        f"flag if more than {_percent(ORDER)} of the images (and more than one) fall at a smaller eps and stand at a "
        "larger one; fail if so many more stand at 2 eps than at eps / 2.",
    ),
    "S8": (
        "twice the steps",
        f"flag if doubling the steps of the plan's strongest attack breaks more than {_percent(STEPS)} of the images "
        "(and more than one).",
    ),
    "S9": (
        "another start",
        f"flag if the plan's strongest attack, started again, breaks more than {_percent(RESTARTS)} of the images (and "
        "more than one).",
    ),
    "S10": (
        "many steps beat one",
        f"fail if one gradient step breaks more images than the plan's attacks do, flag if PGD loses to one step or "
        f"Auto-PGD to PGD (by more than {_percent(ORDER)} and more than one image).",
    ),
    "S11": (
        "no black box does better",
        f"flag if queries or other models' adversarial images break more than {_percent(BLACK_BOX)} of the images that "
        f"stood against gradients; fail above {_percent(MASKED)}.",
    ),
    "S12": (
        "noise does not do better",
        f"flag if random noise breaks images that stood against the plan's attacks; fail above {_percent(MASKED)} "
        "(and more than one).",
    ),
    "S13": (
        "the best image is returned",
        "fail if an attack met an adversarial image inside the threat and returned another one that is not, or is set "
        "to return its last iterate.",
    ),
    "S14": (
        "attacks have converged",
        f"flag if in more than {_percent(SHARE_OF_IMAGES)} of the survivors (and more than one) the last steps still "
        f"brought more than {_percent(MOVING)} of the whole gain.",
    ),
    "S15": (
        "the loss is smooth",
        f"flag if noise within eps changes the margin by more than {_percent(UNSTABLE)} of its size in the mean.",
    ),
    "S16": (
        "gradients are true",
        f"fail if no gradient reaches the image; flag if a step along it changes the margin by less than 1/{SLOPE:g} "
        f"or more than {SLOPE:g} times what it promises (median over images).",
    ),
    "S17": (
        "the model stays as it is",
        "fail if parameters or buffers change during the checks; flag if a forward computes gradients itself.",
    ),
    "S18": (
        "adversarial images are valid",
        "fail if one leaves the threat or is not finite, or if clean decisions differ from the rows' in more than "
        f"{_percent(CLEAN_REMADE)}; flag if more than {_percent(JUDGED)} of the decisions depend on the batch size or "
        f"more than {_percent(REMADE)} of the attacked rows cannot be made again.",
    ),
    "S19": ("counting", "fail if a row is missing or double, or if counting the rows again gives other accuracies."),
    "S20": (
        "number of classes",
        "flag a level of one node, which nothing can break; fail if an attack would aim at more classes than there "
        "are.",
    ),
    "S21": (
        "attacks find a planted class",
        "each of the plan's attacks must find an adversarial class that is planted inside the threat: fail below "
        f"{_percent(PLANTED_FAIL)} of the images, flag if more than one is missed.",
    ),
    "S22": (
        "the checks see broken models",
        "fail if these checks' own gradient tests pass a copy of the model with quantised pixels, with logits times "
        "100, or cut off from its input.",
    ),
    "S23": (
        "levels fit together",
        "fail if the model was built over another forest or a level is no partition; flag if a level's own decision "
        f"and its best leaf's agree no better than chance (kappa below {AGREEMENT:g}), or if attacks on other levels "
        f"break more than {_percent(FOREIGN)} of the images (and more than one) that stood at their own.",
    ),
    "S24": (
        "texts and head",
        f"flag two nodes of a level with one name or with texts of cosine above {ALIKE:g}, scores that are not those "
        "of the head on record, and a level whose clean accuracy is no better than chance.",
    ),
    "S25": (
        "statistics",
        "fail if models were not given the same images; flag if the 95 % interval of a robust accuracy reaches more "
        f"than {100 * HALF_WIDTH:g} points to a side.",
    ),
    "S26": (
        "images and labels",
        "fail if a label or an id is impossible or double or one picture has two labels; flag pictures that occur "
        "twice and nodes of the coarsest level without an image.",
    ),
    "S27": (
        "precision",
        "fail if scores are computed in half precision; flag if a bfloat16 search and a float32 search differ in more "
        f"than {_percent(PRECISION)} of the images (and more than one), or if TF32 is on.",
    ),
}
