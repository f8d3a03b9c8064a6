"""The denials of a vault that its network settings cause. The wordings are quoted in Microsoft's documentation and in public issues."""

from __future__ import annotations

from keysync.emulator.tokens import Token
from keysync.emulator.vault import Vault
from keysync.emulator.wire import Reply, error


def network_denial(vault: Vault, token: Token, address: str) -> Reply | None:
    """The reply to a caller whose network the vault does not admit, None if it does. `address` is the IP of the client."""
    caller = f"appid={token.client_id};oid={token.object_id};iss={token.issuer}"
    place = f"Caller: {caller}\r\nVault: {vault.name};location={vault.location}"
    match vault.network:
        case "firewall":
            message = (
                "Client address is not authorized and caller is not a trusted service.\r\n"
                f"Client address: {address}\r\n{place}"
            )
            return error(403, "Forbidden", message, inner="ForbiddenByFirewall")
        case "private":
            message = (
                "Public network access is disabled and request is not from a trusted service nor via an approved "
                f"private link.\r\n{place}"
            )
            return error(403, "Forbidden", message, inner="ForbiddenByConnection")
        case "open":
            return None


def network_headers(vault: Vault, address: str) -> dict[str, str]:
    """The headers of every reply of a vault."""
    family, version = ("InterNetworkV6", "Ipv6") if ":" in address else ("InterNetwork", "Ipv4")
    return {
        "Pragma": "no-cache",
        "Expires": "-1",
        "Strict-Transport-Security": "max-age=31536000;includeSubDomains",
        "X-Content-Type-Options": "nosniff",
        "x-ms-keyvault-network-info": f"conn_type={version};addr={address};act_addr_fam={family};",
        "x-ms-keyvault-region": vault.location,
        "x-ms-keyvault-service-version": "1.9.3347.1",
    }
