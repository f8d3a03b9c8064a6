"""How a user signs in: in a browser or with a device code. The emulator confirms each sign-in at once, without a password."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from keysync.emulator.directory import Directory
from keysync.emulator.identity_data import IdentityData
from keysync.emulator.services.entra_errors import Refusals
from keysync.emulator.services.scopes import user_resource
from keysync.emulator.tokens import BadToken, Tokens
from keysync.emulator.wire import Call, Json, Reply, split_url

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
# The names of grants and of parameters.
_SEALED = {"authorization_code": "code", "refresh_token": "refresh_token", DEVICE_CODE: "device_code"}  # nosec B105
GRANTS = frozenset(_SEALED)
"""The grants of users. Each is redeemed by the parameter of the same line."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_DEVICE_CODE_SECONDS = 900


class UserSignIn:
    """Signs in the users of the directory."""

    def __init__(self, directory: Directory, tokens: Tokens) -> None:
        self._directory = directory
        self._tokens = tokens
        self._redeemed: set[str] = set()

    def device_code(self, call: Call, form: Mapping[str, str], refuse: Refusals) -> Reply:
        """A device code, which is confirmed already."""
        user = self._user(None, refuse)
        code = self._tokens.seal("device_code", {"user": user.object_id, "scope": form.get("scope", "")})
        short = secrets.token_hex(4).upper()
        page = f"{call.base}/common/oauth2/deviceauth"
        message = f"To sign in, use a web browser to open the page {page} and enter the code {short} to authenticate."
        content = {
            "user_code": short,
            "device_code": code,
            "verification_uri": page,
            "expires_in": _DEVICE_CODE_SECONDS,
            "interval": 5,
            "message": f"{message} The emulator has confirmed it for {user.user_principal_name}.",
        }
        return Reply(200, content)

    def authorize(self, call: Call, refuse: Refusals) -> Reply:
        """Redirects the browser back with a code. Only to this machine, where the client listens."""
        target = split_url(call.query.get("redirect_uri", ""))
        if target.hostname not in _LOOPBACK or call.query.get("response_type") != "code":
            message = (
                f"The redirect URI '{call.query.get('redirect_uri', '')}' specified in the request does not match the "
                "redirect URIs configured for the application."
            )
            raise refuse(400, "AADSTS50011", message)
        user = self._user(call.query.get("login_hint"), refuse)
        sealed = {"user": user.object_id, "scope": call.query.get("scope", ""), "nonce": call.query.get("nonce", "")}
        fields = {"code": self._tokens.seal("code", sealed), "state": call.query.get("state", "")}
        query = urlencode([*parse_qsl(target.query), *fields.items()])
        if call.query.get("response_mode") == "form_post":
            return _form_post(urlunsplit(target), fields)
        return Reply(302, None, {"Location": urlunsplit(target._replace(query=query))})

    def redeem(self, call: Call, form: Mapping[str, str], name: str, refuse: Refusals) -> Reply:
        """Tokens for a code or a refresh token."""
        parameter = _SEALED[form["grant_type"]]
        if parameter not in form:
            raise refuse.missing(parameter)
        sealed = self._unsealed(parameter, form[parameter], refuse)
        user = self._directory.by_object(sealed["user"])
        if user is None:
            raise refuse(400, "AADSTS50034", f"The user account does not exist in the {name} directory.")
        tenant = self._directory.tenant_of(user) if name in {"common", "organizations"} else name
        scope = form.get("scope") or sealed["scope"]
        resource = user_resource(scope, tenant, refuse)
        client = form.get("client_id", "")
        lifetime = self._tokens.lifetime
        about = {"aud": client, **({"nonce": sealed["nonce"]} if sealed.get("nonce") else {})}
        content: Json = {
            "token_type": "Bearer",  # nosec B105  # the type of a token
            "scope": f"{resource.rstrip('/')}/user_impersonation {resource.rstrip('/')}/.default",
            "expires_in": lifetime,
            "ext_expires_in": lifetime,
            "access_token": self._tokens.issue(user, tenant, resource, client_id=client),
            "refresh_token": self._tokens.seal("refresh_token", {"user": user.object_id, "scope": scope}),
            "id_token": self._tokens.id_token(user, tenant, f"{call.base}/{tenant}/v2.0", about),
            "client_info": _client_info(user, self._directory.tenant_of(user)),
        }
        if self._tokens.refresh_in is not None:
            content["refresh_in"] = self._tokens.refresh_in
        return Reply(200, content, {"Cache-Control": "no-store, no-cache"})

    def _unsealed(self, parameter: str, text: str, refuse: Refusals) -> dict[str, str]:
        """What a code or a refresh token was made for. A code can be redeemed once."""
        try:
            sealed = self._tokens.unseal(parameter, text)
        except BadToken:
            message = f"The provided value for the input parameter '{parameter}' is not valid."
            raise refuse(400, "AADSTS70000", message) from None
        if text in self._redeemed:
            message = (
                "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing "
                "refresh token."
            )
            raise refuse(400, "AADSTS54005", message)
        if parameter != "refresh_token":
            self._redeemed.add(text)
        return sealed

    def realm(self, call: Call, name: str) -> Reply:
        """What clients ask about a sign-in name: its directory manages it, without federation."""
        content = {
            "ver": "1.0",
            "account_type": "Managed",
            "domain_name": name.rpartition("@")[2],
            "cloud_instance_name": urlsplit(call.base).netloc,
            "cloud_audience_urn": "urn:federation:MicrosoftOnline",
        }
        return Reply(200, content)

    def _user(self, name: str | None, refuse: Refusals) -> IdentityData:
        user = self._directory.user(name)
        if user is None:
            raise refuse(
                400, "AADSTS50034", "The user account does not exist: the data file has no identity of the type user."
            )
        return user


def _client_info(user: IdentityData, tenant: str) -> str:
    """The account in the form of MSAL."""
    content = json.dumps({"uid": user.object_id, "utid": tenant}).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _form_post(address: str, fields: Mapping[str, str]) -> Reply:
    """A page that posts the code, as MSAL's listener asks for."""
    from html import escape  # noqa: PLC0415  # only in this reply

    inputs = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items())
    page = f'<form method="post" action="{escape(address)}">{inputs}<button>Continue</button></form><script>document.forms[0].submit()</script>'
    return Reply(
        200, f"<!DOCTYPE html><html><body>{page}</body></html>".encode(), {"Content-Type": "text/html; charset=utf-8"}
    )
