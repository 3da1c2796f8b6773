"""Commands that train one configuration: train, baseline."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.cli.progress import Progress
from core.config import Config


@dataclass(frozen=True)
class TrainOptions:
    """Run the whole paper on one configuration: sets, face classifier, conformal prediction, GAN, metrics. Ctrl-C stops; the same
    command resumes. Examples: python -m core train --preset smoke · python -m core train --preset demo --gan.condition label"""

    preset: Literal["smoke", "demo", "fer2013-ravdess", "fine", "paper", "studio"] = "demo"
    """Where the settings below start from: smoke takes under a minute, demo some minutes, both need no download."""
    config_file: Path | None = None
    """A run's config.json to start from instead of a preset."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes an NVIDIA card where there is one."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True)
class BaselineOptions:
    """Accuracy of the voice or face classifier alone, over folds of subjects (§4.3). Example: python -m core baseline --preset demo"""

    modality: Literal["voice", "face"] = "voice"
    folds: int = 5
    """Each fold tests another fifth of the subjects."""
    preset: Literal["smoke", "demo", "fer2013-ravdess", "fine", "paper", "studio"] = "demo"
    """Where the settings below start from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def train(options: TrainOptions) -> int:
    from core import files
    from core.data import preparation as preparing
    from core.data import splits
    from core.experiments import pipeline

    asked = []
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *a: asked.append(1))
    progress, config = Progress(), options.config
    begun = time.monotonic()
    try:
        for name in splits.demo_corpora(config.data):
            preparing.prepare_corpus(
                name,
                None,
                tick=lambda d, t: progress("draw the demo corpus", d, t),
                takes=config.data.demo_takes,
                should_stop=lambda: bool(asked),
            )
        run = pipeline.run(
            config, device=options.device, report=progress, should_stop=lambda: bool(asked)
        )
    except (pipeline.TrainingStopped, files.StopRequested):
        print("\nstopped; the same command resumes it", file=sys.stderr)
        return 130
    print(f"\n{run.directory} is done, {time.monotonic() - begun:.0f} s in this process\n")
    print(results_markdown(run.json("results")))
    return 0


def results_markdown(results: dict) -> str:
    """A run's results as a short table in Markdown."""
    q = results["quality"]
    chance, k = 100 * results["chance"], len(results["classes"])
    given, made = (
        ("voice", "face") if results.get("direction") == "voice-face" else ("face", "voice")
    )
    lines = [
        f"labels: {results['labels']} · {k} classes · chance {chance:.1f} % · "
        f"N = {results['N test voices']} voices, {results['N test faces']} faces of S4",
        "",
        f"| trained on | N | accuracy on real S4 {made}s |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row} | {t['N train']} | {100 * t['accuracy']:.2f} % |"
        for row, t in results["augmentation"].items()
    ]
    lines += [
        "",
        f"{given}s (f_S) {100 * results[given]['accuracy']:.2f} % · FID {q['FID']:.2f} (real {q['FID real']:.2f}) · "
        f"KID {q['KID']:.3f} ± {q['KID sd']:.3f} (real {q['KID real']:.3f}) · IS {q['IS']:.2f} (real {q['IS real']:.2f}) · "
        f"recognised {100 * q['recognised']:.1f} % (real {100 * q['recognised real']:.1f} %) · N = {q['N']}, {q['features']} features, "
        f"scorer {q['scorer']}",
    ]
    return "\n".join(lines + results["notes"])


def baseline(options: BaselineOptions) -> int:
    import numpy as np

    from core.experiments import pipeline

    folds = pipeline.baselines(
        options.config, options.folds, options.modality, options.device, Progress()
    )
    data, accuracy = options.config.data, np.array([100 * f["accuracy"] for f in folds])
    print(
        f"\n{options.modality}s of {data.voices if options.modality == 'voice' else data.faces}, trained on S1, scored on S4"
    )
    for f in folds:
        print(f"  fold {f['fold']}: {100 * f['accuracy']:.2f} %, N = {f['N']}")
    spread = accuracy.std(ddof=1) if len(folds) > 1 else float("nan")
    n, k = sum(f["N"] for f in folds), len(data.classes)
    of = f"{k} classes, chance {100 / k:.1f} %, N = {n}, seed {options.config.seed}"
    print(f"  mean {accuracy.mean():.2f} ± {spread:.2f} % over {len(folds)} folds; {of}")
    return 0
