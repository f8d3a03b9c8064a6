"""What Entra publishes: its instances, the configuration of a tenant, and the signing keys."""

from __future__ import annotations

from urllib.parse import urlsplit

from keysync.emulator.services.entra_errors import Refusals
from keysync.emulator.wire import Call, Json, Reply, split_url

_PUBLIC = ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"]
_LOCAL = {"localhost", "127.0.0.1", "::1"}


def instance_discovery(call: Call, home: str, refuse: Refusals) -> Reply:
    """Which hosts are the same instance as the host of `authorization_endpoint`. `home` is the home tenant."""
    host = urlsplit(call.base).netloc
    endpoint = call.query.get("authorization_endpoint")
    asked = split_url(endpoint or f"{call.base}/{home}/oauth2/v2.0/authorize")
    if not (_is_this(asked.netloc, host) or asked.hostname in _PUBLIC) or asked.scheme != "https":
        raise refuse(400, "AADSTS50049", "Unknown or invalid instance.")
    tenant = asked.path.split("/")[1] or home
    port = urlsplit(call.base).port
    local = [f"{name}:{port}" for name in ("localhost", "127.0.0.1")] if port else []
    aliases = [host] if endpoint is None else list(dict.fromkeys([host, *local]))
    own = {"preferred_network": host, "preferred_cache": host, "aliases": aliases}
    public = {"preferred_network": _PUBLIC[0], "preferred_cache": _PUBLIC[1], "aliases": _PUBLIC}
    return Reply(
        200,
        {
            "tenant_discovery_endpoint": f"https://{asked.netloc}/{tenant}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [public] if host in _PUBLIC else [own, public],
        },
    )


def _is_this(asked: str, host: str) -> bool:
    """Whether a host and port mean this server: `localhost` and 127.0.0.1 are the same."""
    this, other = urlsplit(f"//{host}"), urlsplit(f"//{asked}")
    return asked.lower() == host.lower() or (this.port == other.port and {this.hostname, other.hostname} <= _LOCAL)


def openid_configuration(call: Call, tenant: str, *, shared: bool, v2: bool) -> Reply:
    """The addresses of a tenant. With `shared` it is ``common`` or ``organizations``."""
    root, version = f"{call.base}/{tenant}", "/v2.0" if v2 else ""
    content: Json = {
        "token_endpoint": f"{root}/oauth2{version}/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": f"{root}/discovery{version}/keys",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": f"{call.base}/{'{tenantid}' if shared else tenant}{version}",
        "request_uri_parameter_supported": False,
        "authorization_endpoint": f"{root}/oauth2{version}/authorize",
        "device_authorization_endpoint": f"{root}/oauth2{version}/devicecode",
        "tenant_region_scope": "EU",
        "cloud_instance_name": urlsplit(call.base).netloc,
        "msgraph_host": urlsplit(call.base).netloc,
    }
    return Reply(200, content)
