"""Low-rank adapters through peft: put into a backbone before training, merged into its weights after it."""

from __future__ import annotations

from torch import nn

from rag_ese.errors import ConfigError, MissingExtraError
from rag_ese.training.config import LoRA


def add_adapters(model: nn.Module, settings: LoRA) -> None:
    """Puts adapters beside the linear layers that `settings` names; everything else in `model` stops learning."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("train", "training with LoRA") from error
    wanted = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=settings.targets, lora_dropout=0.0)
    try:
        inject_adapter_in_model(wanted, model)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, each in model.named_modules() if isinstance(each, nn.Linear)})
        raise ConfigError(
            f"lora.targets {', '.join(settings.targets)} name no linear layer of the model: it has {', '.join(names)}"
        ) from error


def merge_adapters(model: nn.Module) -> None:
    """Adds every adapter to the layer that it sits beside and takes it out again."""
    from peft.tuners.lora import LoraLayer

    for name, module in [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
