"""How to use a running emulator: a configuration for keysync, its environment, and commands for a shell."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote

from keysync.emulator.data import EmulatorData
from keysync.emulator.endpoints import Endpoints


def configuration(endpoints: Endpoints, content: EmulatorData) -> str:
    """A configuration of keysync (YAML) for every account; the vaults take turns. Without a vault it has no accounts.

    Without a client secret it uses the sign-in of az.
    """
    vaults = list(endpoints.vaults.items())
    lines = [
        "# Configuration of keysync",
        "cloud:",
        f"  authority: {endpoints.authority}",
        f"  resource_manager: {endpoints.resource_manager}",
        f"  ca_bundle: {endpoints.ca_bundle}",
        f"credential: {{type: {'environment' if endpoints.client_secret else 'azure_cli'}}}",
        *(["vaults:"] if vaults else []),
        *(f"  '{name}': {{url: {url!r}, verify_challenge_resource: false}}" for name, url in vaults),
        *(["accounts:"] if content.accounts and vaults else []),
    ]
    for index, account in enumerate(content.accounts if vaults else ()):
        lines += [
            f"  - subscription_id: {account.subscription_id}",
            f"    resource_group: '{account.resource_group}'",
            f"    name: '{account.name}'",
            f"    vaults: ['{vaults[index % len(vaults)][0]}']",
        ]
    return "\n".join(lines) + "\n"


def variables(endpoints: Endpoints) -> dict[str, str]:
    """Azure's own variables for the credential of kind `environment`; only those of the tenant without a client secret."""
    tenant = {"AZURE_AUTHORITY_HOST": endpoints.authority, "AZURE_TENANT_ID": endpoints.tenant_id}
    if not endpoints.client_secret:
        return tenant
    return {**tenant, "AZURE_CLIENT_ID": endpoints.client_id, "AZURE_CLIENT_SECRET": endpoints.client_secret}


def environment_file(environ: Mapping[str, str]) -> str:
    """The variables as a file for both ``. FILE`` in a shell and ``docker run --env-file FILE``.

    Docker reads NAME=VALUE lines, takes the value as it is, and knows no ``export``. So the last line is also such a
    line, of the variable ``_``, which every shell overwrites. A value that a shell must have in quotes is for shells only.
    """
    lines = [f"{name}={quote(value)}" for name, value in environ.items()]
    header = "# For `. FILE` and `docker run --env-file FILE`. The last line exports the variables in a shell."
    return "\n".join([header, *lines, f"_=; export {' '.join(environ)}"]) + "\n"


def guide(endpoints: Endpoints, content: EmulatorData) -> str:
    """The configuration, and how to use the emulator from a shell, with az and with its control address."""
    lines = [
        configuration(endpoints, content),
        "# Environment",
        *(f"export {name}={quote(value)}" for name, value in variables(endpoints).items()),
        "",
        *_az_commands(endpoints, content),
        "",
        "# Azure's own names instead, such as https://NAME.vault.azure.net, for any client and without options",
        f"# export HTTPS_PROXY={endpoints.proxy} SSL_CERT_FILE={quote(endpoints.ca_bundle)}",
        "",
        f"# Control (faults, rotations, request counts): curl {endpoints.control}",
        "# Press Ctrl-C to stop.",
    ]
    return "\n".join(lines)


def _az_commands(endpoints: Endpoints, content: EmulatorData) -> list[str]:
    tenant, client, secret = quote(endpoints.tenant_id), quote(endpoints.client_id), quote(endpoints.client_secret)
    principal = f"--service-principal --tenant {tenant} --username {client} --password={secret}"
    lines = [
        "# az",
        f"export REQUESTS_CA_BUNDLE={quote(endpoints.ca_bundle)}",
        # az appends the suffix to --vault-name. With a slash as suffix, the name can be a host and a port.
        f"az cloud register --name keysync --endpoint-resource-manager {endpoints.resource_manager} --suffix-keyvault-dns /",
        "az cloud set --name keysync",
        "az config set core.instance_discovery=false",
        f"az login {principal if endpoints.client_secret else '--use-device-code'}",
    ]
    for account in content.accounts[:1]:
        place = f"--subscription {account.subscription_id} --resource-group {quote(account.resource_group)}"
        lines.append(f"az batch account keys list {place} --name {account.name}")
    for url in list(endpoints.vaults.values())[:1]:
        lines += [
            f"az keyvault secret set --vault-name {url.removeprefix('https://')} --name hello --value world",
            f"az keyvault secret show --id {url}/secrets/hello",
            f"az keyvault secret list --id {url}",
        ]
    return lines
