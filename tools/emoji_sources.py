"""The drawings behind the embedded data set: packages, versions, checksums, artists and licences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One drawing style: the npm package it comes from, who drew it, and under which licence."""

    style: str
    artist: str
    package: str
    version: str
    sha256: str
    licence: str
    url: str
    split: str

    @property
    def archive(self) -> str:
        """File name that `npm pack` gives to the package."""
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


SOURCES = (
    Source(
        style="noto",
        artist="Google (Noto Emoji)",
        package="@iconify-json/noto",
        version="1.2.9",
        sha256="3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        licence="Apache-2.0",
        url="https://github.com/googlefonts/noto-emoji",
        split="train",
    ),
    Source(
        style="noto-v1",
        artist="Google (Noto Emoji, first edition)",
        package="@iconify-json/noto-v1",
        version="1.2.5",
        sha256="2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        licence="Apache-2.0",
        url="https://github.com/googlefonts/noto-emoji",
        split="train",
    ),
    Source(
        style="fluent",
        artist="Microsoft (Fluent Emoji, colour)",
        package="@iconify-json/fluent-emoji",
        version="1.2.7",
        sha256="8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        licence="MIT",
        url="https://github.com/microsoft/fluentui-emoji",
        split="train",
    ),
    Source(
        style="fluent-flat",
        artist="Microsoft (Fluent Emoji, flat)",
        package="@iconify-json/fluent-emoji-flat",
        version="1.2.6",
        sha256="7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        licence="MIT",
        url="https://github.com/microsoft/fluentui-emoji",
        split="train",
    ),
    Source(
        style="fluent-3d",
        artist="Microsoft (Fluent Emoji, 3D)",
        package="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        licence="MIT",
        url="https://github.com/microsoft/fluentui-emoji",
        split="train",
    ),
    Source(
        style="fxemoji",
        artist="Mozilla (FxEmoji)",
        package="@iconify-json/fxemoji",
        version="1.2.2",
        sha256="f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        licence="CC-BY-4.0",
        url="https://github.com/mozilla/fxemoji",
        split="train",
    ),
    Source(
        style="twemoji",
        artist="Twitter and contributors (Twemoji)",
        package="@iconify-json/twemoji",
        version="1.2.5",
        sha256="19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        licence="CC-BY-4.0",
        url="https://github.com/jdecked/twemoji",
        split="test",
    ),
    Source(
        style="emojione",
        artist="EmojiTwo, from EmojiOne 2.3 (Ranks.com)",
        package="@iconify-json/emojione",
        version="1.2.3",
        sha256="26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        licence="CC-BY-4.0",
        url="https://github.com/EmojiTwo/emojitwo",
        split="test",
    ),
)
