"""Methods: each says what its attack maximises and what the weights minimise. A new method is one file and one line
here."""

from robustree.methods.agft import AGFT
from robustree.methods.fare import FARE
from robustree.methods.hierarchical import Hierarchical
from robustree.methods.method import Adversarial, Context, Method
from robustree.methods.pmg_aft import PMGAFT
from robustree.methods.tecoa import TeCoA

__all__ = ["AGFT", "FARE", "PMGAFT", "Adversarial", "Context", "Hierarchical", "Method", "TeCoA"]
