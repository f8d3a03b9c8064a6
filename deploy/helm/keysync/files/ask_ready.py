"""Asks every pod behind the URLs whether it is ready: python3 ask_ready.py COUNT SECONDS URL…

Ends with 1 unless COUNT pods or more are there and all of them are ready within SECONDS.
"""

# ruff: noqa: INP001  # a script
import json
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# A proxy in the environment is for Azure.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def pods(url: str) -> list[str]:
    """The URL once for each address that its name has."""
    parts = urllib.parse.urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = [f"[{one[4][0]}]" if one[0] == socket.AF_INET6 else one[4][0] for one in found]
    return [parts._replace(netloc=f"{host}:{parts.port}").geturl() for host in hosts]


def ask(url: str) -> tuple[bool, object]:
    """Whether the pod is ready, and its own words."""
    try:
        with OPENER.open(url, timeout=5) as answer:
            return True, json.load(answer)
    except urllib.error.HTTPError as error:
        return False, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        return False, error


def ask_all(urls: list[str]) -> dict[str, tuple[bool, object]]:
    """The answers of all pods."""
    return {pod: ask(pod) for pod in sorted({pod for url in urls for pod in pods(url)})}


def main(count: int, seconds: float, urls: list[str]) -> int:
    """Asks until all is well or the time is over; the exit code."""
    end = time.monotonic() + seconds
    answers = ask_all(urls)
    while not (well := len(answers) >= count and all(ready for ready, _ in answers.values())):
        if time.monotonic() >= end:
            break
        time.sleep(2)
        answers = ask_all(urls)
    for pod, (_, words) in answers.items():
        sys.stdout.write(f"{pod}: {words}\n")
    sys.stdout.write(f"{sum(ready for ready, _ in answers.values())} of {max(count, len(answers))} pods are ready\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
