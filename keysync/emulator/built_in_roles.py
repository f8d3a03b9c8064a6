"""The built-in roles that matter to keysync, with their real ids.

learn.microsoft.com/azure/role-based-access-control/built-in-roles and, for Batch, learn.microsoft.com/azure/batch/batch-role-based-access-control.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from keysync.emulator.roles import Permissions, RoleDefinition

_ADMIN: Final = (
    "Microsoft.Authorization/*/read",
    "Microsoft.Insights/alertRules/*",
    "Microsoft.Resources/deployments/*",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
)
_VAULTS: Final = (
    *_ADMIN,
    "Microsoft.Support/*",
    "Microsoft.KeyVault/checkNameAvailability/read",
    "Microsoft.KeyVault/deletedVaults/read",
    "Microsoft.KeyVault/locations/*/read",
    "Microsoft.KeyVault/vaults/*/read",
    "Microsoft.KeyVault/operations/read",
)
_SECRETS: Final = "Microsoft.KeyVault/vaults/secrets/"
_BATCH: Final = "Microsoft.Batch/batchAccounts/"
_MESSAGES: Final = "Microsoft.Storage/storageAccounts/queueServices/queues/messages/"
_QUEUES: Final = "Microsoft.Storage/storageAccounts/queueServices/queues/"
_JOBS: Final = (f"{_BATCH}jobSchedules/*", f"{_BATCH}jobs/*")
_NOT_CONTRIBUTOR: Final = (
    "Microsoft.Authorization/*/Delete",
    "Microsoft.Authorization/*/Write",
    "Microsoft.Authorization/elevateAccess/Action",
    "Microsoft.Blueprint/blueprintAssignments/write",
    "Microsoft.Blueprint/blueprintAssignments/delete",
    "Microsoft.Compute/galleries/share/action",
    "Microsoft.Purview/consents/write",
    "Microsoft.Purview/consents/delete",
    "Microsoft.Resources/deploymentStacks/manageDenySetting/action",
    "Microsoft.Subscription/cancel/action",
    "Microsoft.Subscription/enable/action",
)

_BUILT_IN: Final[dict[str, tuple[str, Permissions]]] = {
    "Owner": ("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", Permissions(("*",))),
    "Contributor": ("b24988ac-6180-42a0-ab88-20f7382dd24c", Permissions(("*",), _NOT_CONTRIBUTOR)),
    "Reader": ("acdd72a7-3385-48ef-bd42-f606fba81ae7", Permissions(("*/read",))),
    "User Access Administrator": (
        "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
        Permissions(("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*")),
    ),
    "Role Based Access Control Administrator": (
        "f58310d9-a9f6-439a-9e8d-f62e7b41a168",
        Permissions(
            (
                "Microsoft.Authorization/roleAssignments/write",
                "Microsoft.Authorization/roleAssignments/delete",
                "*/read",
                "Microsoft.Support/*",
            )
        ),
    ),
    "Key Vault Administrator": (
        "00482a5a-887f-4fb3-b363-3b7fe8e74483",
        Permissions(_VAULTS, data_actions=("Microsoft.KeyVault/vaults/*",)),
    ),
    "Key Vault Secrets Officer": (
        "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
        Permissions(_VAULTS, data_actions=(f"{_SECRETS}*",)),
    ),
    "Key Vault Secrets User": (
        "4633458b-17de-408a-b874-0445c86b69e6",
        Permissions(data_actions=(f"{_SECRETS}getSecret/action", f"{_SECRETS}readMetadata/action")),
    ),
    "Key Vault Reader": (
        "21090545-7ca7-4776-b22c-e363652d74d2",
        Permissions(_VAULTS, data_actions=("Microsoft.KeyVault/vaults/*/read", f"{_SECRETS}readMetadata/action")),
    ),
    "Key Vault Contributor": (
        "f25e0fa2-a7c8-4377-a976-54943a77a395",
        Permissions(
            (*_ADMIN, "Microsoft.Support/*", "Microsoft.KeyVault/*"),
            (
                "Microsoft.KeyVault/locations/deletedVaults/purge/action",
                "Microsoft.KeyVault/hsmPools/*",
                "Microsoft.KeyVault/managedHsms/*",
            ),
        ),
    ),
    "Azure Batch Account Contributor": (
        "29fe4964-1e60-436b-bd3a-77fd4c178b3c",
        Permissions((*_ADMIN, f"{_BATCH}*"), data_actions=(f"{_BATCH}*",)),
    ),
    "Azure Batch Account Reader": (
        "11076f67-66f6-4be0-8f6b-f0609fd05cc9",
        Permissions(
            (f"{_BATCH}read", f"{_BATCH}*/read", "Microsoft.Resources/subscriptions/resourceGroups/read"),
            data_actions=(f"{_BATCH}*/read",),
        ),
    ),
    "Azure Batch Data Contributor": (
        "6aaa78f1-f7de-44ca-8722-c64a23943cae",
        Permissions(
            (
                *_ADMIN,
                f"{_BATCH}read",
                f"{_BATCH}applications/*",
                f"{_BATCH}certificates/*",
                f"{_BATCH}certificateOperationResults/*",
                f"{_BATCH}pools/*",
                f"{_BATCH}poolOperationResults/*",
                "Microsoft.Batch/locations/*/read",
            ),
            data_actions=_JOBS,
        ),
    ),
    "Azure Batch Job Submitter": (
        "48e5e92e-a480-4e71-aa9c-2778f4c13781",
        Permissions(
            (
                f"{_BATCH}applications/read",
                f"{_BATCH}applications/versions/read",
                f"{_BATCH}pools/read",
                "Microsoft.Insights/alertRules/*",
                "Microsoft.Resources/subscriptions/resourceGroups/read",
            ),
            data_actions=_JOBS,
        ),
    ),
    "Storage Queue Data Contributor": (
        "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
        Permissions(
            (f"{_QUEUES}delete", f"{_QUEUES}read", f"{_QUEUES}write"),
            data_actions=(f"{_MESSAGES}*",),
        ),
    ),
    "Storage Queue Data Message Processor": (
        "8a0f0c08-91a1-4084-bc3d-661d67233fed",
        Permissions(data_actions=(f"{_MESSAGES}read", f"{_MESSAGES}process/action")),
    ),
    "Storage Queue Data Message Sender": (
        "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a",
        Permissions(data_actions=(f"{_MESSAGES}add/action",)),
    ),
    "Storage Queue Data Reader": (
        "19e7f393-937e-4f77-808e-94535e297925",
        Permissions((f"{_QUEUES}read",), data_actions=(f"{_MESSAGES}read",)),
    ),
}

NAMES: Final = tuple(_BUILT_IN)


def built_in_roles() -> Iterator[RoleDefinition]:
    """The definitions."""
    for name, (role_id, permissions) in _BUILT_IN.items():
        yield RoleDefinition(role_id, name, f"The built-in role {name}.", [permissions], ["/"], built_in=True)
