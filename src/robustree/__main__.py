"""`python -m robustree`, the same as the command `robustree`; torchrun starts it this way."""

from robustree.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
