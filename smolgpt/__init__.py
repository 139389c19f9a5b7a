"""A small GPT to learn from, train and use. The main names are loaded when they are first asked for."""
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .evaluation import evaluate as evaluate
    from .generation import generate as generate, stream as stream
    from .model import GPT as GPT, GPTConfig as GPTConfig
    from .tokens import load_tokenizer as load_tokenizer

_HOMES = {
    "GPT": "model",
    "GPTConfig": "model",
    "evaluate": "evaluation",
    "generate": "generation",
    "load_tokenizer": "tokens",
    "stream": "generation",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *_HOMES])
