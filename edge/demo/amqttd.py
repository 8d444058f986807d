"""amqtt as a process: `python -m edge.demo.amqttd FILE`, until SIGTERM; on the loopback alone."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


def settings(document: dict[str, Any], passwords: Path) -> dict[str, Any]:
    """Amqtt's configuration.

    Args:
        document: `port`, `users` (name to password), `rules` (`publish` and `subscribe`: name to
            topics).
        passwords: Where the hashes of the passwords are.
    """
    rules = document["rules"]
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{document['port']}"}},
        "plugins": {
            "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)},
            "amqtt.plugins.topic_checking.TopicAccessControlListPlugin": {
                "publish_acl": rules["publish"],
                "acl": rules["subscribe"],
            },
        },
    }


def write_passwords(users: dict[str, str], path: Path) -> None:
    """Writes the file of hashes."""
    from pwdlib.hashers.argon2 import Argon2Hasher  # noqa: PLC0415 - amqtt brings it

    # The passwords are random and long: cheap hashes are as good as dear ones.
    hasher = Argon2Hasher(time_cost=1, memory_cost=1024, parallelism=1)
    lines = [f"{name}:{hasher.hash(password)}\n" for name, password in users.items()]
    path.touch(0o600)
    path.write_text("".join(lines))


async def serve(config: dict[str, Any]) -> None:
    """Runs the broker until SIGTERM."""
    from amqtt.broker import Broker  # type: ignore[import-untyped]  # noqa: PLC0415 - heavy

    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    broker = Broker(config)
    await broker.start()
    await ending.wait()
    await broker.shutdown()


def main() -> None:
    """Reads the file, and serves."""
    logging.basicConfig(level=logging.WARNING)
    path = Path(sys.argv[1])
    document = json.loads(path.read_text())
    passwords = path.with_suffix(".passwords")
    write_passwords(document["users"], passwords)
    asyncio.run(serve(settings(document, passwords)))


if __name__ == "__main__":
    main()
