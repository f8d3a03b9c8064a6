"""An `az` for tests: it records its arguments, and gives real answers to the calls whose output a script uses."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# A zero byte ends an argument, another one ends a call.
_AZ = """\
#!/bin/sh
for word; do printf '%s\\0' "$word" >>"$AZ_LOG"; done
printf '\\0' >>"$AZ_LOG"
case "$1 $2 $3" in
    'role definition update') [ -n "${AZ_ROLES_THERE:-}" ] || { echo 'No definition was found' >&2; exit 1; }
        echo /subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/old ;;
    'role definition create') [ -z "${AZ_REFUSES:-}" ] || { echo 'not allowed' >&2; exit 1; }
        echo /subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/new ;;
    'role assignment create') [ -z "${AZ_LATE:-}" ] || { echo 'no such role' >&2; exit 1; } ;;
    'keyvault show --name') printf '/subscriptions/s/resourceGroups/vaults/providers/Microsoft.KeyVault/vaults/%s\\n' "$4" ;;
    'aks show --name') echo https://issuer.example/c ;;
    'identity show --name') [ "$8" = clientId ] && echo 11111111-0000-0000-0000-000000000000 ||
        echo 22222222-0000-0000-0000-000000000000 ;;
    'ad sp show') printf 'object-of-%s\\n' "$5" ;;
    'account list --query') echo some-subscription ;;
esac
"""


@dataclass(frozen=True)
class AzRun:
    """How a script ended, and its calls of `az`, each as a list of arguments."""

    code: int
    out: str
    err: str
    calls: list[list[str]]

    def of(self, *words: str) -> list[list[str]]:
        """The calls that begin with these arguments, without them."""
        return [call[len(words) :] for call in self.calls if call[: len(words)] == list(words)]


def run_with_az(script: str, folder: Path, *, program: str = "sh", **environ: str) -> AzRun:
    """Runs a script from stdin with that `az` first on PATH, in the empty folder `folder`."""
    az, log = folder / "az", folder / "az.log"
    az.write_text(_AZ)
    az.chmod(0o755)
    log.touch()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PRINCIPAL_ID", "VAULT_ID", "AZ_"))
    }
    done = subprocess.run(
        [program],
        input=script.encode(),
        env={**kept, "PATH": f"{folder}:{os.environ['PATH']}", "AZ_LOG": str(log), **environ},
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    calls: list[list[str]] = [[]]
    for word in log.read_bytes().decode().split("\0")[:-1]:
        if word:
            calls[-1].append(word)
        else:
            calls.append([])
    log.unlink()
    return AzRun(done.returncode, done.stdout.decode(), done.stderr.decode(), calls[:-1])
