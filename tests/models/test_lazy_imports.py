"""Importing is cheap until something is used: seconds matter on a command line."""

from __future__ import annotations

import subprocess
import sys


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_itself_loads_neither_torch_nor_transformers() -> None:
    assert not _loaded_by("import robustree") & {"torch", "transformers", "accelerate", "numpy", "PIL", "matplotlib"}


def test_attacks_models_and_data_load_torch_and_nothing_heavier() -> None:
    loaded = _loaded_by("import robustree.attacks, robustree.models, robustree.data, robustree.tree_model")
    assert "torch" in loaded
    assert not loaded & {"transformers", "accelerate", "matplotlib", "huggingface_hub", "tokenizers"}


def test_training_loads_its_launcher_but_no_model_code_and_no_logger() -> None:
    loaded = _loaded_by("import robustree.training, robustree.training.tensorboard, robustree.training.wandb")
    assert "accelerate" in loaded
    assert not loaded & {"transformers", "matplotlib", "tensorboard", "wandb"}
