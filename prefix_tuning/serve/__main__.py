"""Serve the prefixes of a folder on their base model over HTTP."""

from __future__ import annotations

import argparse
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError, run_command

_MANY = 2**30
_RANGES = {
    "port": (0, 65535),
    "max_rows": (1, _MANY),
    "max_waiting": (0, _MANY),
    "max_tokens": (1, _MANY),
    "max_body": (1, _MANY),
    "timeout": (0.001, _MANY),
    "prefix_memory": (1, _MANY),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m prefix_tuning.serve", description=__doc__)
    parser.add_argument("--model", required=True, help="hub name or folder of the base model")
    parser.add_argument("--prefixes", required=True, type=Path, help="folder of exported prefixes")
    parser.add_argument("--name", help="what requests call the base model alone")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default=8000, type=int, help="port to listen on; 0: any free one")
    parser.add_argument(
        "--api_key",
        default=os.environ.get("PREFIX_TUNING_API_KEY"),
        help="bearer token that requests must carry (default: $PREFIX_TUNING_API_KEY, or none)",
    )
    parser.add_argument("--device", help="cpu, cuda or mps (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="precision of the weights",
    )
    parser.add_argument("--max_rows", default=64, type=int, help="texts decoded together")
    parser.add_argument("--max_waiting", default=256, type=int, help="texts that may wait")
    parser.add_argument("--max_tokens", default=1024, type=int, help="longest text of a request")
    parser.add_argument("--max_body", default=2**20, type=int, help="longest body in bytes")
    parser.add_argument("--timeout", default=120.0, type=float, help="seconds for a request")
    parser.add_argument(
        "--prefix_memory", default=256, type=int, help="MiB reserved for prefixes in use"
    )
    args = parser.parse_args(argv)
    for flag, (low, high) in _RANGES.items():
        if not low <= getattr(args, flag) <= high:  # nan neither
            raise UserError(f"--{flag} must be from {low} to {high}")
    return args


def _load(args: argparse.Namespace) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        dtype = getattr(torch, args.dtype)
        model: Any = AutoModelForCausalLM.from_pretrained(
            args.model, dtype=dtype, trust_remote_code=False
        )
        model = model.to(device)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--model {args.model} cannot be loaded on {device} ({reason})") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"--model {args.model}: its tokenizer has no end-of-text token")
    return model.eval().requires_grad_(False), tokenizer


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs."""
    args = parse_args(argv)
    try:
        import uvicorn

        from prefix_tuning.serve.app import create_app
        from prefix_tuning.serve.service import Settings
    except ImportError as error:
        raise UserError(f"{error.name} is missing: pip install 'prefix-tuning[serve]'") from error
    from prefix_tuning.bank import PrefixBank
    from prefix_tuning.serve.engine import Engine

    model, tokenizer = _load(args)
    bank = PrefixBank(model, args.prefixes, args.prefix_memory * 2**20)
    settings = Settings(
        base_name=args.name or Path(args.model).name,
        api_key=args.api_key,
        max_body=args.max_body,
        default_tokens=min(64, args.max_tokens),
        max_tokens=args.max_tokens,
        timeout=args.timeout,
    )
    if settings.base_name in bank:
        raise UserError(
            f"--name {settings.base_name}: {args.prefixes} has a prefix of this name, which would "
            "never be asked: give the base model another"
        )
    app = create_app(Engine(bank, args.max_rows, args.max_waiting), tokenizer, settings)
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=int(args.timeout) + 5,
        timeout_keep_alive=30,
    )
    try:
        listening = socket.create_server((args.host, args.port), backlog=2048)
    except OSError as error:
        raise UserError(
            f"--host {args.host} --port {args.port}: cannot listen there ({error.strerror})"
        ) from error
    host, port = listening.getsockname()[:2]
    print(f"serving {len(bank.names())} prefixes on http://{host}:{port}/v1", flush=True)
    # uvicorn finishes what runs and then raises the signal again: that shall end in status 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
    print("stopped", flush=True)


if __name__ == "__main__":
    run_command(main)
