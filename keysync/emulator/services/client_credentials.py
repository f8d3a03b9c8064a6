"""Checks how an application proves who it is: a client secret, a certificate or a federated assertion."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import cast

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.types import Options

from keysync.emulator.identity_data import FederatedData, IdentityData
from keysync.emulator.services.entra_errors import Refusals

_DOCUMENTATION = "https://learn.microsoft.com/entra/identity-platform/certificate-credentials"

_SIGNATURE_ONLY: Options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}


def check_client(identity: IdentityData, form: Mapping[str, str], refuse: Refusals) -> None:
    """Raises Refused unless the form proves that the caller is `identity`."""
    if form.get("client_assertion"):
        _check_assertion(identity, form["client_assertion"], refuse)
    elif not form.get("client_secret"):
        message = (
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."
        )
        raise refuse(401, "AADSTS7000216", message)
    elif form["client_secret"] != identity.client_secret:
        message = (
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
            f"not the client secret ID, for a secret added to app '{identity.client_id}'."
        )
        raise refuse(401, "AADSTS7000215", message)
    elif identity.client_secret_expires is not None and identity.client_secret_expires <= refuse.now:
        message = (
            f"The provided client secret keys for app '{identity.client_id}' are expired. Visit the Azure portal to "
            "create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials "
            "for added security: https://aka.ms/certCreds."
        )
        raise refuse(401, "AADSTS7000222", message)


def _check_assertion(identity: IdentityData, assertion: str, refuse: Refusals) -> None:
    try:
        header = jwt.get_unverified_header(assertion)
        claims = jwt.decode(assertion, options={"verify_signature": False, "verify_exp": False})
    except jwt.PyJWTError:
        if identity.any_assertion:
            return
        raise refuse(400, "AADSTS50027", "JWT token is invalid or malformed.") from None
    thumbprint = header.get("x5t#S256") or header.get("x5t")
    if not identity.any_assertion:
        if thumbprint is None and identity.federated:
            _check_federated(identity.federated, claims, refuse)
        else:
            _check_signature(identity, assertion, str(thumbprint or ""), refuse)
    _check_times(claims, refuse)


def _check_times(claims: Mapping[str, object], refuse: Refusals) -> None:
    begins, ends = float(str(claims.get("nbf", 0))), float(str(claims.get("exp", "inf")))
    if begins <= refuse.now < ends:
        return
    message = (
        f"Client assertion is not within its valid time range. Current time: {_precise(refuse.now)}, assertion valid "
        f"from {_precise(begins)}, expiry time of assertion {_precise(ends)}. Review the documentation at "
        f"{_DOCUMENTATION} ."
    )
    raise refuse(401, "AADSTS700024", message)


def _check_federated(records: list[FederatedData], claims: Mapping[str, object], refuse: Refusals) -> None:
    """Compares issuer, subject and audience with case, as Entra does. The signature is not checked."""
    matching = list(records)
    check = "Check your federated identity credential Subject, Audience and Issuer against the presented assertion."
    compared = "Please note that the matching is done using a case-sensitive comparison. "
    for code, what, claim in (
        ("AADSTS700211", "issuer", "iss"),
        ("AADSTS700213", "subject", "sub"),
        ("AADSTS700212", "audience", "aud"),
    ):
        value = claims.get(claim)
        matching = [record for record in matching if getattr(record, what) == value]
        if not matching:
            message = f"No matching federated identity record found for presented assertion {what} '{value}'. {compared}{check}"
            raise refuse(400, code, message)


def _check_signature(identity: IdentityData, assertion: str, sent: str, refuse: Refusals) -> None:
    """Finds the certificate that signed the assertion. Raises Refused if there is none, or if it has expired."""
    certificate = next((each for each in _certificates(identity) if sent.rstrip("=") in _thumbprints(each)), None)
    if certificate is None:
        message = _key_message(identity, sent, "not registered", "The key was not found.", "")
        raise refuse(401, "AADSTS700027", message)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin.timestamp() <= refuse.now < end.timestamp():
        found = f"Found key 'Start={begin:%m/%d/%Y %H:%M:%S}, End={end:%m/%d/%Y %H:%M:%S}', "
        message = _key_message(identity, sent, "expired", "The key used is expired.", found)
        raise refuse(401, "AADSTS700027", message)
    try:
        key = cast("RSAPublicKey", certificate.public_key())
        jwt.decode(assertion, key, algorithms=["RS256", "PS256"], options=_SIGNATURE_ONLY)
    except jwt.PyJWTError:
        raise refuse(401, "AADSTS700027", "Client assertion failed signature validation.") from None


def _thumbprints(certificate: x509.Certificate) -> set[str]:
    """The names of a key in assertions: by SHA-1 (`x5t`) and by SHA-256 (`x5t#S256`)."""
    # A name, which protects nothing.
    kinds = (hashes.SHA1(), hashes.SHA256())  # noqa: S303  # nosec B303
    return {base64.urlsafe_b64encode(certificate.fingerprint(kind)).rstrip(b"=").decode("ascii") for kind in kinds}


def _key_message(identity: IdentityData, sent: str, state: str, reason: str, found: str) -> str:
    return (
        f"The certificate with identifier used to sign the client assertion is {state} on application. [Reason - {reason}, "
        f"Thumbprint of key used by client: '{_decoded(sent).hex().upper()}', {found}Please visit the Azure Portal, Graph "
        f"Explorer or directly use MS Graph to see configured keys for app Id '{identity.client_id}'. Review the "
        "documentation at https://docs.microsoft.com/en-us/graph/deployments to determine the corresponding service "
        "endpoint and https://docs.microsoft.com/en-us/graph/api/application-get?view=graph-rest-1.0&tabs=http to build "
        f"a query request URL, such as 'https://graph.microsoft.com/beta/applications/{identity.client_id}']."
    )


def _certificates(identity: IdentityData) -> Iterator[x509.Certificate]:
    return (x509.load_pem_x509_certificate(pem.encode("ascii")) for pem in identity.certificates)


def _decoded(thumbprint: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(thumbprint + "=" * (-len(thumbprint) % 4))
    except ValueError:
        return b""


def _precise(when: float) -> str:
    """A time as Entra writes it: with seven digits after the second."""
    if when == float("inf"):
        return "9999-12-31T23:59:59.9999999Z"
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%S.%f}0Z"
