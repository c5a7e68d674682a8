"""Configuration of a training run. Source: report, section 6."""

from dataclasses import dataclass, field

from pi_behavior.config import OPERATIONAL, require


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up to the peak, then cosine decay until the last step."""

    peak: float = 1e-4
    """Learning rate after the warm-up."""
    final: float = 1e-5
    """Learning rate at the last step."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            (self.peak > 0, f"peak is {self.peak}; expected more than 0"),
            (self.final >= 0, f"final is {self.final}; expected 0 or more"),
        )


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults are for the report's machine (8 x H200)."""

    steps: int = 20_000
    """Gradient steps."""
    batch_size: int = 2048
    """Observations per gradient step, over all devices."""
    flow_samples: int = 15
    """Pairs of time and noise per observation, on one prefix pass (report, section 6.2)."""
    learning_rate: LearningRate = LearningRate()
    """Schedule of the learning rate."""
    warmup_steps: int = 1000
    """Steps of linear warm-up of the learning rate."""
    weight_decay: float = 1e-10
    """Weight decay of AdamW."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average of the weights; 0 turns it off."""
    stage_weight: float = 0.1
    """Weight of the stage loss (report, section 6.3.2)."""
    fast_weight: float = 0.05
    """Weight of the FAST loss (report, section 6.3.3)."""
    augment: bool = True
    """Augment images: crop, rotate, colour."""
    fsdp: int = field(default=1, metadata=OPERATIONAL)
    """Devices over which parameters and optimizer state are sharded; the others are data-parallel."""
    accumulate: int = field(default=1, metadata=OPERATIONAL)
    """Parts of a batch that are computed one after the other, to save memory; their gradients are added."""
    save_every: int = field(default=500, metadata=OPERATIONAL)
    """Steps between saved states, which a killed training continues from. The last two are kept."""
    save_minutes: float = field(default=10.0, metadata=OPERATIONAL)
    """Longest time between saved states."""
    keep_every: int = field(default=0, metadata=OPERATIONAL)
    """Keep the saved state of every so many steps until the end, as well as the last two; 0 keeps none."""
    log_every: int = field(default=20, metadata=OPERATIONAL)
    """Steps between logged metrics."""
    validate_every: int = field(default=500, metadata=OPERATIONAL)
    """Steps between measurements of the losses on held-out demonstrations, where there are any."""
    validation_batches: int = field(default=8, metadata=OPERATIONAL)
    """Batches of such a measurement, the same ones every time."""
    seed: int = 0
    """Seed of initialisation, batches and noise."""

    def __post_init__(self) -> None:
        """Check ranges."""
        positive = (
            *("batch_size", "flow_samples", "save_every", "log_every", "fsdp", "accumulate"),
            *("validate_every", "validation_batches"),
        )
        require(
            *((getattr(self, n) >= 1, f"{n} is {getattr(self, n)}; expected at least 1") for n in positive),
            *(
                (getattr(self, n) >= 0, f"{n} is {getattr(self, n)}; expected 0 or more")
                for n in (
                    "steps",
                    "warmup_steps",
                    "keep_every",
                    "weight_decay",
                    "stage_weight",
                    "fast_weight",
                    "seed",
                )
            ),
            (self.save_minutes > 0, f"save_minutes is {self.save_minutes}; expected more than 0"),
            (self.clip_norm > 0, f"clip_norm is {self.clip_norm}; expected more than 0"),
            (0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}; expected 0 up to, not including, 1"),
        )
