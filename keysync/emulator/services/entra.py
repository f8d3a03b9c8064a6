"""Entra ID: discovery, and tokens for applications and users."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs

from keysync.emulator.directory import Directory
from keysync.emulator.faults import Operation
from keysync.emulator.identity_data import IdentityData
from keysync.emulator.services.client_credentials import check_client
from keysync.emulator.services.entra_discovery import instance_discovery, openid_configuration
from keysync.emulator.services.entra_errors import Refusals, token_error
from keysync.emulator.services.scopes import application_resource, known_resource
from keysync.emulator.services.user_sign_in import GRANTS, UserSignIn
from keysync.emulator.throttle import Clock
from keysync.emulator.tokens import BadToken, Token, Tokens, signing_keys
from keysync.emulator.wire import Call, Json, Reply, Route

__all__ = ["BadToken", "Entra", "Token"]

_SHARED = {"common", "organizations"}


class Entra:
    """The endpoints of Entra for all tenants of the directory."""

    def __init__(self, directory: Directory, tokens: Tokens, clock: Clock) -> None:
        self.tokens = tokens
        self._directory = directory
        self._users = UserSignIn(directory, tokens)
        self._clock = clock

    def read(self, token: str) -> Token:
        """The claims of a token. The called service checks audience, tenant and expiry. Raises BadToken."""
        return self.tokens.read(token)

    def route(self, call: Call) -> Route | None:
        """How to serve a call, None if it is not for Entra."""
        parts = [part.lower() for part in call.segments]
        refuse = Refusals(call, self._clock())
        v2 = "v2.0" in parts
        operation: Operation = "discovery"
        run: Callable[[], Reply]
        match (call.method, *(part for part in parts[1:] if part != "v2.0")):
            case ("POST", "oauth2", "token"):
                operation, run = "token", partial(self._token, call, parts[0], refuse, v2=v2)
            case ("POST", "oauth2", "devicecode"):
                operation, run = "deviceCode", partial(self._device_code, call, parts[0], refuse)
            case ("GET", "oauth2", "authorize"):
                operation, run = "authorize", partial(self._users.authorize, call, refuse)
            case ("GET", *_, ".well-known", "openid-configuration"):
                run = partial(self._configuration, call, parts[0], refuse, v2=v2)
            case ("GET", "discovery", "instance"):
                run = partial(instance_discovery, call, self._directory.home, refuse)
            case ("GET", "discovery", "keys"):
                run = partial(Reply, 200, signing_keys())
            case ("GET", "userrealm", name):
                run = partial(self._users.realm, call, name)
            case _:
                return None
        return Route(operation, parts[0], run, service="entra")

    def _tenant(self, name: str, refuse: Refusals) -> str:
        tenant = self._directory.tenant(name)
        if tenant is None:
            message = (
                f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the "
                "correct cloud. Check with your subscription administrator, this may happen if there are no active "
                "subscriptions for the tenant."
            )
            raise refuse(400, "AADSTS90002", message)
        return tenant

    def _configuration(self, call: Call, name: str, refuse: Refusals, *, v2: bool) -> Reply:
        shared = name in _SHARED
        tenant = name if shared else self._tenant(name, refuse)
        return openid_configuration(call, tenant, shared=shared, v2=v2)

    def _device_code(self, call: Call, name: str, refuse: Refusals) -> Reply:
        self._tenant(name, refuse)
        return self._users.device_code(call, _form(call), refuse)

    def _token(self, call: Call, name: str, refuse: Refusals, *, v2: bool) -> Reply:
        tenant = self._tenant(name, refuse)
        form = _form(call)
        grant = form.get("grant_type")
        if not grant:
            raise refuse.missing("grant_type")
        if grant in GRANTS:
            return self._users.redeem(call, form, name if name in _SHARED else tenant, refuse)
        if grant != "client_credentials":
            raise refuse(400, "AADSTS70003", f"The app requested an unsupported grant type '{grant}'.")
        identity = self._application(form, tenant, refuse)
        check_client(identity, form, refuse)
        if v2:
            resource = application_resource(form.get("scope", ""), tenant, refuse)
        elif form.get("resource"):
            resource = known_resource(form["resource"], tenant, refuse)
        else:
            raise refuse.missing("resource")
        return self._application_token(identity, tenant, resource, v2=v2)

    def _application(self, form: dict[str, str], tenant: str, refuse: Refusals) -> IdentityData:
        client = form.get("client_id", "")
        if not client:
            raise refuse.missing("client_id")
        identity = self._directory.application(client, tenant)
        if identity is None:
            message = (
                f"Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if "
                "the application has not been installed by the administrator of the tenant or consented to by any user "
                "in the tenant. You may have sent your authentication request to the wrong tenant."
            )
            raise refuse(400, "AADSTS700016", message)
        return identity

    def _application_token(self, identity: IdentityData, tenant: str, resource: str, *, v2: bool) -> Reply:
        """The reply with a token; numbers are texts in version 1.0."""
        now, lifetime = int(self._clock()), self.tokens.lifetime
        times = {"expires_in": lifetime, "ext_expires_in": lifetime}
        if self.tokens.refresh_in is not None:
            times["refresh_in"] = self.tokens.refresh_in
        if not v2:
            times |= {"expires_on": now + lifetime, "not_before": now}
        content: Json = {
            "token_type": "Bearer",  # nosec B105  # the type of a token
            **{name: value if v2 else str(value) for name, value in times.items()},
            "access_token": self.tokens.issue(identity, tenant, resource),
        }
        if not v2:
            content["resource"] = resource
        return Reply(200, content, {"Cache-Control": "no-store, no-cache"})

    def error(self, status: int, code: str, message: str | None, call: Call) -> Reply:
        """An error of the token endpoint, for an injected fault. `code` is an AADSTS code or an OAuth error code."""
        return token_error(call, self._clock(), status, code, message)


def _form(call: Call) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(call.body.decode("utf-8", "replace")).items()}
