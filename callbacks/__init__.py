"""Layer 3: callbacks that monitor a run. Configs name them; no Python file imports them."""

from callbacks.benchmark_monitor import BenchmarkMonitor
from callbacks.loss_mode_ablation import LossModeAblation
from callbacks.perplexity import PerplexityMonitor
from callbacks.run_health import RunHealth
from callbacks.sample_generation import SampleGeneration
from callbacks.trial_record import TrialRecord
from callbacks.weight_histograms import WeightHistograms

__all__ = [
    "BenchmarkMonitor",
    "LossModeAblation",
    "PerplexityMonitor",
    "RunHealth",
    "SampleGeneration",
    "TrialRecord",
    "WeightHistograms",
]
