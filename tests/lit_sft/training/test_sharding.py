from __future__ import annotations

import pytest
from lightning.pytorch.strategies import (
    DDPStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)

from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings
from lit_sft.training.sharding import check_strategy


class ZeRO3(SingleDeviceStrategy):
    """Mimics Lightning's DeepSpeedStrategy in stage 3; DeepSpeed itself is not installed here."""

    zero_stage_3 = True


@pytest.mark.parametrize("strategy", [FSDPStrategy(), ZeRO3()])
def test_strategies_that_shard_the_head_are_refused(strategy: Strategy) -> None:
    with pytest.raises(ValueError, match=rf"{type(strategy).__name__} .*fsdp2\.yaml"):
        check_strategy(strategy, BackboneSettings())


@pytest.mark.parametrize("strategy", [SingleDeviceStrategy(), DDPStrategy(), ModelParallelStrategy()])
def test_other_strategies_are_accepted(strategy: Strategy) -> None:
    check_strategy(strategy, BackboneSettings())


def test_sharded_weights_that_adapters_start_from_are_refused() -> None:
    backbone = BackboneSettings("m", tuning="lora", lora=LoraSettings(init="pissa"))
    with pytest.raises(ValueError, match=r"ModelParallelStrategy shards the weights, .*lora\.init pissa"):
        check_strategy(ModelParallelStrategy(), backbone)
    check_strategy(DDPStrategy(), backbone)


def test_sharded_weights_of_which_rows_are_trained_are_refused() -> None:
    backbone = BackboneSettings("m", tuning="lora", add_tokens=["x"])
    with pytest.raises(ValueError, match=r"ModelParallelStrategy with LoRA and new tokens"):
        check_strategy(ModelParallelStrategy(), backbone)
    check_strategy(DDPStrategy(), backbone)
    check_strategy(ModelParallelStrategy(), BackboneSettings("m", add_tokens=["x"]))
