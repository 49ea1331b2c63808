"""``--serve``: the page in the browser."""

from __future__ import annotations

import argparse
import sys
from typing import Any

LIMITS = ("max_pixels", "max_upload", "queue")


def serve(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Serve the page until the process is ended.

    On an address that others can reach it has limits, unless told otherwise.
    """
    if args.inputs:
        raise ValueError("--serve takes no images: they are chosen on the page.")
    from srgan_infer import web

    limits = dict.fromkeys(LIMITS) if web.is_local(args.host) else web.LIMITS
    given = {name: getattr(args, name) for name in LIMITS if hasattr(args, name)}
    web.serve(
        host=args.host,
        port=args.port,
        ready=lambda address: _say(args, f"The page is at {address}; Ctrl-C ends it."),
        device=args.device,
        **{**options, **limits, **given},
    )
    return 0


def _say(args: argparse.Namespace, sentence: str) -> None:
    if not args.quiet:
        print(f"srgan-upscale: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
