"""The api-versions of Resource Manager and of its providers."""

from __future__ import annotations

from keysync.emulator.services.arm import ArmRequest, Provider
from keysync.emulator.services.arm_errors import gateway_error
from keysync.emulator.wire import Refused

LOCATIONS = (
    "westeurope", "northeurope", "francecentral", "uksouth", "swedencentral", "eastus", "eastus2", "westus2", "centralus",
    "southcentralus", "japaneast", "japanwest", "southeastasia", "australiaeast", "centralindia", "brazilsouth",
)  # fmt: skip
"""The regions of every provider, beside those of the accounts in the data."""


def check_version(request: ArmRequest, provider: Provider, location: str, only: tuple[str, ...]) -> None:
    """Raises Refused if the provider has no such resource type, or not in this api-version.

    `only` replaces the versions of the provider, unless it is empty. `location` is the region of the resource, empty if there is none. With it the error is that of a missing provider; without
    it, as for a listing, that of a missing type.
    """
    if not request.namespace:
        _check_own(request, provider.versions[""])
        return
    name = _type(request, provider)
    if name is None:
        kind = "/".join(request.path[::2])
        message = f"The resource type '{kind}' could not be found in the namespace '{provider.namespace}' for api version '{request.version}'."
        raise Refused(gateway_error(404, "InvalidResourceType", message))
    versions = only or provider.versions[name]
    if request.version in versions:
        return
    if location:
        message = (
            f"No registered resource provider found for location '{location}' and API version '{request.version}' for type "
            f"'{name}'. The supported api-versions are '{', '.join(versions)}'. The supported locations are "
            f"'{', '.join(dict.fromkeys((*LOCATIONS, location)))}'."
        )
        raise Refused(gateway_error(400, "NoRegisteredProviderFound", message))
    message = (
        f"The resource type '{name}' could not be found in the namespace '{provider.namespace}' for api version "
        f"'{request.version}'. The supported api-versions are '{','.join(versions)}'."
    )
    raise Refused(gateway_error(404, "InvalidResourceType", message))


def _type(request: ArmRequest, provider: Provider) -> str | None:
    """The resource type in the path, with or without an action at its end."""
    kinds = ["/".join(request.words[::2])]
    if len(request.words) % 2 and len(request.words) > 1:
        kinds.append("/".join(request.words[:-1:2]))
    known = {name.lower(): name for name in provider.versions}
    return next((known[kind] for kind in kinds if kind in known), None)


def _check_own(request: ArmRequest, versions: tuple[str, ...]) -> None:
    if request.version not in versions:
        message = f"The api-version '{request.version}' is invalid. The supported versions are '{','.join(versions)}'."
        raise Refused(gateway_error(400, "InvalidApiVersionParameter", message))
