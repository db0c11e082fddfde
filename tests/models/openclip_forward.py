"""open_clip's ViT CLIP once more, from its names and PyTorch's own attention, to hold the conversion against.

Loads the state dicts of both of open_clip's classes (`prefix` "" or "text.") strictly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SMALL: dict[str, Any] = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 40, "patch_size": 8, "layers": 2, "width": 128, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 2, "width": 64, "heads": 1, "mlp_ratio": 4.0},
}
B32: dict[str, Any] = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "patch_size": 32, "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0},
}
Tensors = dict[str, Tensor]


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, activation: nn.Module):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, hidden))
        self.mlp.add_module("activation", activation)
        self.mlp.add_module("c_proj", nn.Linear(hidden, width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Stack(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, layers: int, activation: nn.Module):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, hidden, activation) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    def __init__(self, config: dict[str, Any], embed_dim: int, activation: nn.Module):
        super().__init__()
        width, patch = config["width"], config["patch_size"]
        places = (config["image_size"] // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(places, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        heads, hidden = width // config["head_width"], int(width * config["mlp_ratio"])
        self.transformer = Stack(width, heads, hidden, config["layers"], activation)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).mT
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        return self.ln_post(self.transformer(x)[:, 0]) @ self.proj


class Text(nn.Module):
    def __init__(self, config: dict[str, Any], embed_dim: int, activation: nn.Module):
        super().__init__()
        width = config["width"]
        self.end = config.get("eos_id") if config.get("pool_type") == "eos" else None
        self.token_embedding = nn.Embedding(config["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.empty(config["context_length"], width))
        hidden = int(width * config["mlp_ratio"])
        self.transformer = Stack(width, config["heads"], hidden, config["layers"], activation)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = torch.full((length, length), -torch.inf).triu(1)
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding[:length], mask)
        place = tokens.argmax(1) if self.end is None else (tokens == self.end).int().argmax(1)
        return self.ln_final(x)[torch.arange(len(x)), place] @ self.text_projection


class OpenCLIP(nn.Module):
    def __init__(self, model: dict[str, Any]):
        super().__init__()
        activation = QuickGELU() if model.get("quick_gelu") else nn.GELU()
        self.visual = Vision(model["vision_cfg"], model["embed_dim"], activation)
        self.text = Text(model["text_cfg"], model["embed_dim"], activation)
        self.logit_scale = nn.Parameter(torch.empty(()))

    def load(self, tensors: dict[str, Tensor]) -> OpenCLIP:
        """Take the weights of either class, all of them and no other; returns itself."""
        whole = {
            name if name.startswith(("visual.", "text.", "logit_")) else f"text.{name}": tensor
            for name, tensor in tensors.items()
        }
        self.load_state_dict(whole, strict=True)
        return self.eval()

    @torch.no_grad()
    def logits(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Scaled cosines (images, texts)."""
        images = nn.functional.normalize(self.visual(pixels), dim=1)
        texts = nn.functional.normalize(self.text(tokens), dim=1)
        return self.logit_scale.exp() * images @ texts.T


def random_weights(model: dict[str, Any], seed: int = 0) -> Tensors:
    """Random weights of the right sizes under open_clip's names, biases and scales among them."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in OpenCLIP(model).state_dict().items():
        around = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        spread = max(tensor.shape[-1] if tensor.ndim > 1 else 64, 1) ** -0.5
        tensors[name.removeprefix("text.")] = around + spread * torch.randn(tensor.shape, generator=draw)
    return tensors | {"logit_scale": torch.tensor(4.0)}


def shapes(model: dict[str, Any]) -> Tensors:
    with torch.device("meta"):
        state = OpenCLIP(model).state_dict()
    return {name.removeprefix("text."): tensor for name, tensor in state.items()}
