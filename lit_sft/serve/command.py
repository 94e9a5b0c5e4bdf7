"""`python -m lit_sft serve [RUN|FOLDER|NAME ...]`: models behind an HTTP server that speaks OpenAI's API.

A model can be given a name, as in `serve small=runs/quickstart/version_0 base=gpt2`. Each is loaded when it is first
asked for.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from lit_sft.console import print_error_line, quieten
from lit_sft.credentials import SHORTEST_PASSWORD
from lit_sft.models.loaded import LoadedModel
from lit_sft.settings.arguments import Arguments
from lit_sft.settings.model_options import add_loading_options

_KEY = "LIT_SFT_SERVE_KEY"
_SECONDS_TO_FINISH = 5
"""How long answers may go on after Ctrl-C."""
_MOST_CONNECTIONS = 1000


def main(argv: list[str]) -> int:
    """Serve models until the user stops it.

    Args:
        argv: `serve` and its arguments.

    Returns:
        0.

    Raises:
        UserError: If there is no such model, a setting is wrong, or the address cannot be used.
    """
    options = _parser().parse_args(argv[1:])
    for name in ("batch_size", "max_waiting", "max_new_tokens"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least 1.")
    key = read_key(options.key_file, os.environ.get(_KEY, ""))
    try:
        import uvicorn

        from lit_sft.serve.access import is_loopback
        from lit_sft.serve.app import build_app
    except ModuleNotFoundError as error:
        raise UserError(f"serve needs the package {error.name}: `pip install 'lit_sft[serve]'`.") from None
    from lit_sft.serve.served import Limits, ServedModels

    if not key and not is_loopback(options.host):
        raise UserError(
            f"--host {options.host}: other machines could use the models without a key. Set {_KEY} or --key_file, or "
            "leave out --host."
        )
    quieten("serve")
    found = _loaders(options)
    models = ServedModels(found, Limits(options.batch_size, options.max_waiting, options.max_new_tokens))
    listening = _bound(options.host, options.port)
    app = build_app(models, log=_log, key=key, host=options.host)
    _announce(options.host, listening.getsockname()[1], bool(key), is_loopback(options.host))
    try:
        uvicorn.Server(_config(uvicorn, app)).run(sockets=[listening])
    except KeyboardInterrupt:  # the server has finished; this is how it reports what ended it
        pass
    finally:
        models.close()
    print_error_line("serve: stopped")
    return 0


def read_key(file: str | None, given: str) -> str:
    """The key that clients must send.

    Args:
        file: A file that contains it; None for none.
        given: From the environment; empty for none.

    Returns:
        Empty if there is none.

    Raises:
        UserError: If it cannot be sent in a header, or is too easily guessed. The message does not repeat it.
    """
    if file is not None and given:
        raise UserError(f"--key_file {file}: {_KEY} is set too; use one of them.")
    place, key = _KEY, given.strip()
    if file is not None:
        try:
            place, key = f"--key_file {file}", Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise UserError(f"--key_file {file}: {reason}; expected a file with a key.") from None
    if file is None and not given:
        return ""
    if len(key) < SHORTEST_PASSWORD or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"{place}: expected a key of at least {SHORTEST_PASSWORD} letters, digits and signs, without spaces; "
            "`openssl rand -hex 32` makes one."
        )
    return key


def _loaders(options: Any) -> Mapping[str, Callable[[], LoadedModel]]:
    """A function for each model that loads it. All models are found before the first is loaded."""
    from lit_sft.runs.opening import device_named
    from lit_sft.runs.sources import find_source, split_name

    device_named(options.device)
    loaders: dict[str, Callable[[], LoadedModel]] = {}
    for given in options.models or [None]:
        name, named = split_name(given) if given else ("", None)
        source = find_source(named, options.root)
        source.check()
        name = name or source.name
        if name in loaders:
            raise UserError(f"{given}: a second model named {name}; name it as in other={named}.")
        print_error_line(f"serve: {name} is {source.about}")
        if source.is_of_text:
            print_error_line(f"serve: {name} was trained on plain text, not on conversations; ask for completions")
        loaders[name] = partial(source.load, name, template=options.template, device=options.device)
    return loaders


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address; the port 0 takes any that is free."""
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: expected 0 to {2**16 - 1}.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_MOST_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name of a machine"
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({reason}); choose another port or address."
        ) from None


def _config(uvicorn: Any, app: Any) -> Any:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",  # a second Ctrl-C would end it with a traceback; the command closes the models itself
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )


def _announce(host: str, port: int, has_key: bool, is_local: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    print_error_line(f"serve: listening at http://{shown}:{port}/v1; Ctrl-C stops the server")
    if has_key:
        print_error_line("serve: clients must send the key" + ("" if is_local else "; nothing is encrypted"))


def _log(line: str) -> None:
    print_error_line(f"{datetime.now():%H:%M:%S} {line}")
    sys.stderr.flush()


def _parser() -> Arguments:
    from lit_sft.serve.served import Limits

    parser = Arguments("serve", __doc__, example="small=runs/quickstart/version_0 --port 8000")
    usual = Limits()
    parser.add_argument(
        "models",
        nargs="*",
        metavar="[NAME=]MODEL",
        help="run folders, checkpoints, model folders, adapters or hub names; default: the newest run",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; one that others reach needs a key")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (8000); 0 takes any that is free")
    parser.add_argument("--key_file", help=f"file with the key that clients must send; or set {_KEY}")
    parser.add_argument(
        "--batch_size", type=int, default=usual.batch_size, help="answers that a model makes together, at most (16)"
    )
    parser.add_argument(
        "--max_waiting",
        type=int,
        default=usual.max_waiting,
        help="answers that may wait for a model (64); a request for n answers counts n times",
    )
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        default=usual.max_new_tokens,
        help="longest answer to a chat that sets no limit, in tokens (1024)",
    )
    add_loading_options(parser)
    return parser
