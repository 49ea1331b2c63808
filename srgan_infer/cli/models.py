"""``--export`` and ``--convert``: models to and from other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from srgan_infer import weights
from srgan_infer.errors import printable
from srgan_infer.resolver import SuperResolver


def export(args: argparse.Namespace) -> int:
    """Write the chosen model as one file."""
    _take_no_images(args, "--export")
    options = {key: getattr(args, key) for key in ("model", "strength") if hasattr(args, key)}
    sr = SuperResolver.from_pretrained(device="cpu", **options)
    sr.export(args.export, fixed=args.fixed, half=args.half, overwrite=args.overwrite)
    _say(args, f"{args.export} is {sr.name}, ×{sr.scale}, halo {sr.config.halo}")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Make a model folder of another repository's checkpoint."""
    _take_no_images(args, "--convert")
    checkpoint, folder = args.convert
    weights.convert(checkpoint, folder, licence=args.licence, overwrite=args.overwrite)
    config = weights.read(Path(folder), folder).config
    _say(
        args,
        f"{folder} is a model of ×{config.scale}, {config.blocks} blocks of {config.channels} "
        f"channels; run it with --model {folder}",
    )
    return 0


def _take_no_images(args: argparse.Namespace, option: str) -> None:
    if args.inputs:
        raise ValueError(f"{option} takes no images; upscale {args.inputs[0]} by another command.")


def _say(args: argparse.Namespace, sentence: str) -> None:
    if not args.quiet:
        print(printable(f"srgan-upscale: {sentence}."), file=sys.stderr)  # noqa: T201
