"""The resource that a token request is for: the audience of its token."""

from __future__ import annotations

import re

from keysync.emulator.services.entra_errors import Refusals
from keysync.emulator.wire import split_url

_OIDC = {"openid", "profile", "offline_access", "email"}
_DEFAULT = "/.default"
_GRAPH = "https://graph.microsoft.com"
# The parent domains of Azure's services in all clouds, and this machine. `localhost` and an address have no parent domain, so
# the resource of a vault's challenge there is what follows the first dot.
_KNOWN = re.compile(
    r"(.*\.)?(azure\.(com|net|cn|us)|windows\.net|microsoft\.(com|us)|microsoftonline\.com|usgovcloudapi\.net|"
    r"chinacloudapi\.cn|localhost)|\[?::1\]?|[\d.]+"
)


def application_resource(scope: str, tenant: str, refuse: Refusals) -> str:
    """The resource of an application's request: its one scope that ends in ``/.default``, at any place. Raises Refused."""
    scopes = [each for each in scope.split() if each.lower() not in _OIDC]
    if not scopes:
        message = (
            "The required field 'scope' is missing from the credential. Ensure that you have all the necessary "
            "parameters for the login request."
        )
        raise refuse(400, "AADSTS90014", message)
    if not all(each.endswith(_DEFAULT) for each in scopes):
        message = (
            f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value with "
            "/.default suffixed to the resource identifier (application ID URI)."
        )
        raise refuse(400, "AADSTS1002012", message)
    return known_resource(_only(scopes, refuse).removesuffix(_DEFAULT), tenant, refuse)


def user_resource(scope: str, tenant: str, refuse: Refusals) -> str:
    """The resource of a user's request; Microsoft Graph if its scopes name none. Raises Refused."""
    scopes = [each for each in scope.split() if each.lower() not in _OIDC and "://" in each]
    if not scopes:
        return _GRAPH
    return known_resource(_only(scopes, refuse).rpartition("/")[0], tenant, refuse)


def _only(scopes: list[str], refuse: Refusals) -> str:
    if len({each.rpartition("/")[0] for each in scopes}) > 1:
        message = (
            "Provided value for the input parameter scope is not valid because it contains more than one resource. "
            f"Scope {' '.join(scopes)} is not valid."
        )
        raise refuse(400, "AADSTS28000", message)
    return scopes[0]


def known_resource(resource: str, tenant: str, refuse: Refusals) -> str:
    """`resource` if it is one of Azure or of this machine. Raises Refused."""
    if _KNOWN.fullmatch(_host(resource)):
        return resource
    message = (
        f"The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the "
        "application has not been installed by the administrator of the tenant or consented to by any user in the "
        "tenant. You might have sent your authentication request to the wrong tenant."
    )
    raise refuse(400, "AADSTS500011", message)


def _host(resource: str) -> str:
    return (split_url(resource).hostname or "").lower()
