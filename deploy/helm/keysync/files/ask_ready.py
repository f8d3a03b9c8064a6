"""Checks that every pod behind the URLs is ready: python3 ask_ready.py COUNT SECONDS URL…

The exit code is 1 unless at least COUNT pods exist and all of them are ready within SECONDS.
"""

# ruff: noqa: INP001  # a script
import json
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# No proxy: a proxy in the environment is for Azure only.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def pods(url: str) -> list[str]:
    """The URL for each address of its host name."""
    parts = urllib.parse.urlsplit(url)
    try:
        addresses = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = [f"[{info[4][0]}]" if info[0] == socket.AF_INET6 else info[4][0] for info in addresses]
    return [parts._replace(netloc=f"{host}:{parts.port}").geturl() for host in hosts]


def ask(url: str) -> tuple[bool, object]:
    """Whether the pod is ready, and the body of its response or the error."""
    try:
        with OPENER.open(url, timeout=5) as response:
            return True, json.load(response)
    except urllib.error.HTTPError as error:
        return False, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        return False, error


def ask_all(urls: list[str]) -> dict[str, tuple[bool, object]]:
    """The responses of all pods."""
    return {pod: ask(pod) for pod in sorted({pod for url in urls for pod in pods(url)})}


def main(count: int, seconds: float, urls: list[str]) -> int:
    """Asks until all pods are ready or the time is over. Returns the exit code."""
    end = time.monotonic() + seconds
    responses = ask_all(urls)
    while not (all_ready := len(responses) >= count and all(ready for ready, _ in responses.values())):
        if time.monotonic() >= end:
            break
        time.sleep(2)
        responses = ask_all(urls)
    for pod, (_, body) in responses.items():
        sys.stdout.write(f"{pod}: {body}\n")
    ready_pods = sum(ready for ready, _ in responses.values())
    sys.stdout.write(f"{ready_pods} of {max(count, len(responses))} pods are ready\n")
    return 0 if all_ready else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
