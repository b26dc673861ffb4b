"""What a drawn person looks like: build, skin, hair, hat, clothes, bags; drawn at random or cast in one material."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, fields, replace

import numpy as np

SKINS = np.array(
    [(246, 214, 190), (232, 190, 158), (214, 166, 130), (190, 138, 100), (158, 108, 74), (122, 80, 54), (86, 56, 40)]
)
HAIRS = np.array(
    [(26, 22, 20), (44, 32, 24), (72, 48, 32), (110, 74, 44), (160, 116, 66), (206, 170, 110), (150, 70, 36)]
)
GREY_HAIR = np.array((176, 174, 172))


@dataclass(frozen=True)
class Look:
    """One person's build and clothes. Lengths are relative to an adult's, colours RGB in 0..255."""

    #: 0 for an adult, 1 for a small child: larger head, shorter legs
    child: float
    girth: float
    skin: np.ndarray
    hair: str
    hair_colour: np.ndarray
    beard: bool
    glasses: bool
    hat: str
    hat_colour: np.ndarray
    pattern: str
    top: np.ndarray
    second: np.ndarray
    #: how far the sleeves reach along the arm, 0..1
    sleeves: float
    #: trousers, shorts, skirt, dress or coat
    bottom: str
    bottom_colour: np.ndarray
    legs: np.ndarray
    shoes: np.ndarray
    bag: str
    bag_colour: np.ndarray
    umbrella: bool = False
    #: no face: a statue or a mannequin
    blank: bool = False

    def cast(self, material: np.ndarray) -> Look:
        """The same figure made of one material, such as bronze or plaster."""
        colours = {f.name: material * 1.0 for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        plain = {"pattern": "plain", "bag": "none", "umbrella": False, "glasses": False, "blank": True}
        return replace(self, **colours, **plain)


def pick(rng: np.random.Generator, **weights: float) -> str:
    """One of the names, with chances in proportion to the weights."""
    chances = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(chances), p=chances / chances.sum()))]


def cloth(rng: np.random.Generator) -> np.ndarray:
    """A colour that clothes have: neutral, denim or a dye."""
    kind = rng.random()
    if kind < 0.42:
        value = rng.choice([rng.uniform(28, 75), rng.uniform(75, 170), rng.uniform(190, 240)], p=[0.5, 0.25, 0.25])
        return np.clip(value + rng.normal(0, 7, 3), 18, 245)
    if kind < 0.56:
        return np.array((52, 70, 108)) * rng.uniform(0.6, 1.55)
    hue = rng.choice([rng.normal(0.0, 0.05), rng.normal(0.6, 0.07), rng.random()], p=[0.3, 0.25, 0.45])
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.3, 0.85), rng.uniform(0.35, 0.95))) * 255


def _contrast(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """A colour that shows on ``colour``."""
    while True:
        other = cloth(rng)
        if abs(other.mean() - colour.mean()) > 40:
            return other


def random_look(rng: np.random.Generator, child: bool, rain: bool, cold: bool) -> Look:
    """Somebody, dressed for the weather."""
    skin = SKINS[rng.integers(len(SKINS))] * rng.uniform(0.93, 1.05)
    womanly = rng.random() < 0.5
    hair_colour = GREY_HAIR if rng.random() < 0.1 and not child else HAIRS[rng.integers(len(HAIRS))]
    hair = (
        pick(rng, long=0.45, tail=0.2, bun=0.12, short=0.13, afro=0.1)
        if womanly
        else pick(rng, short=0.76, bald=0.1, afro=0.08, tail=0.06)
    )
    top = cloth(rng)
    trousers = 0.62 if womanly else 1.0
    if cold:
        bottom = pick(rng, trousers=trousers, coat=0.45, skirt=0.1 * womanly)
    else:
        bottom = pick(rng, trousers=trousers, shorts=0.22, skirt=0.22 * womanly, dress=0.3 * womanly, coat=0.05)
    bare = bottom in ("skirt", "dress") and rng.random() < 0.7 - 0.4 * cold
    trousers_colour = cloth(rng) if rng.random() < 0.5 else np.array((50, 56, 74)) * rng.uniform(0.5, 1.5)
    return Look(
        child=rng.uniform(0.3, 1.0) if child else 0.0,
        girth=float(np.clip(rng.normal(1.0, 0.13), 0.78, 1.4)),
        skin=skin,
        hair=hair,
        hair_colour=hair_colour * rng.uniform(0.85, 1.15),
        beard=not womanly and not child and rng.random() < 0.3,
        glasses=rng.random() < 0.15,
        hat=pick(rng, none=0.74 - 0.25 * cold, cap=0.1, beanie=0.04 + 0.2 * cold, brim=0.06, hood=0.04, helmet=0.02),
        hat_colour=cloth(rng),
        pattern=pick(rng, plain=0.44, stripes=0.1, bars=0.05, checks=0.08, dots=0.05, panel=0.1, jacket=0.18),
        top=top,
        second=_contrast(rng, top),
        sleeves=1.0 if cold or rng.random() < 0.45 else float(rng.choice([0.0, 0.4, 0.4, 0.55])),
        bottom=bottom,
        bottom_colour=trousers_colour,
        legs=skin if bare or bottom == "shorts" else np.array((46, 42, 46)),
        shoes=np.array((226, 224, 220)) if rng.random() < 0.3 else cloth(rng) * 0.6,
        bag=pick(rng, none=0.6, backpack=0.15, hand=0.13, shoulder=0.12),
        bag_colour=cloth(rng),
        umbrella=rng.random() < (0.4 if rain else 0.01),
    )
